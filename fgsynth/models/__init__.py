"""Networks behind narrow contracts: timm classifiers, CLIP."""

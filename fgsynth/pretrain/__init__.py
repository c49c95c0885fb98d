"""How the mini unCLIP of data/pretrained was made, measured and described."""

"""fgsynth: feedback-guided data synthesis for imbalanced classification, as a reproducible companion."""

__version__ = "0.1.0"

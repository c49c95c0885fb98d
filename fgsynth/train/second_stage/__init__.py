"""Second stages of long-tailed learning: what becomes of the last layer after training."""

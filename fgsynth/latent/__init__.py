"""Learning in feature space (LS): frozen features, synthetic features, a linear probe."""

"""Linear probes on features, and the references without synthetic data."""

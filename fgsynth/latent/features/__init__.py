"""Features: extractors, files, and benchmarks in feature space."""

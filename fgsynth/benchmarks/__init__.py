"""Benchmarks: every data set is one manifest of pictures with split, class and context."""

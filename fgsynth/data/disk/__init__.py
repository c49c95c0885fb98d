"""Benchmarks on disk: real data sets as tables of image files, and their check before a run."""

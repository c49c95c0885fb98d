"""Benchmarks on disk: real data sets as tables of picture files, and their check before a run."""

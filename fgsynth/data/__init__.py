"""Benchmarks: a table of images with split, class and context, and what opens the images."""

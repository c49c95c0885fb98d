"""Command line, notebook runner, and what stages do besides."""

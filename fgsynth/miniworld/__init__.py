"""The mini world: a procedural world of small images whose hidden factors are known."""

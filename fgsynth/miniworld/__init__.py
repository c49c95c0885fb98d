"""The mini world: a procedural world of small pictures whose hidden factors are known."""

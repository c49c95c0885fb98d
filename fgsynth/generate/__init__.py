"""Synthetic sets: generator, plan, synthesis, store, engines."""

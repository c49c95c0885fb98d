"""Paths, seeds, errors, cache, parallel work, interrupts, progress."""

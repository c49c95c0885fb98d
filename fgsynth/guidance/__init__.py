"""Feedback guidance in pure tensors: criteria, feedback, noise schedule, samplers (FG equations 1 to 8)."""

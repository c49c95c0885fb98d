"""What runs cost: measured, counted and estimated."""

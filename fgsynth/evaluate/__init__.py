"""Metrics, FID, density and coverage, tidy tables, figures."""

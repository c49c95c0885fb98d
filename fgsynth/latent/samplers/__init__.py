"""Latent samplers: how synthetic features are drawn."""

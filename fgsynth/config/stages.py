"""The stages that run a notebook."""

NOTEBOOKS = {
    "toy_2d": "01_toy_2d",
    "latent_probe": "02_latent_probe",
    "ablations": "03_ablations",
    "imagenet_lt": "04_imagenet_lt",
    "places_lt": "05_places_lt",
    "nicopp": "06_nicopp",
    "beyond": "08_beyond",
    "baselines": "09_baselines",
    "own_images": "07_own_images",
}
"""Stage -> notebook, as in dvc.yaml; the order of the report."""

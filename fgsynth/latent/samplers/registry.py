"""The family of latent samplers by name. LS does not print its sampler: the family is our choice."""

import math
from collections.abc import Callable

from fgsynth.latent.samplers.base import LatentSampler
from fgsynth.latent.samplers.gaussians import DistributionCalibration, Gaussian, ShrunkMeans
from fgsynth.latent.samplers.mixtures import GaussianMixture
from fgsynth.latent.samplers.neighbours import KernelDensity, Smote

SAMPLERS: dict[str, Callable[[], LatentSampler]] = {
    "class gaussian": Gaussian,
    "tied gaussian": lambda: Gaussian(strength=math.inf),
    "shrunk means, tied covariance": ShrunkMeans,
    "distribution calibration": DistributionCalibration,
    "kernel density": KernelDensity,
    "gaussian mixture": GaussianMixture,
    "smote": Smote,
}
"""Makes an unfitted sampler with its default parameters."""

"""A small feature set in a long tail, and a small problem of the probe."""

import numpy as np
import torch

from fgsynth.latent.features.feature_set import FeatureSet
from fgsynth.latent.probe.objective import Objective
from fgsynth.utils.seeds import generator

COUNTS = (120, 40, 6)


def feature_set(seed=0, k=6, n_val=10, n_test=40):
    """Three overlapping normal classes in a long tail, with the rest of the balanced set."""
    g = torch.Generator().manual_seed(seed)
    parts = [
        (name, y, n)
        for y, count in enumerate(COUNTS)
        for name, n in (("train", count), ("rest", 120 - count), ("val", n_val), ("test", n_test))
        if n
    ]
    x = [torch.randn(n, k, generator=g) + 1.2 * torch.eye(3, k)[y] for _, y, n in parts]
    label = torch.cat([torch.full((n,), y) for _, y, n in parts])
    split = np.concatenate([np.full(n, name) for name, _, n in parts])
    return FeatureSet(5 + 3 * torch.cat(x), label, split, ("a", "b", "c"))


def problem(weight_decay=0.05, seed=0, dtype=torch.double):
    """An objective of 40 features of three classes, and a weight and a bias to evaluate it at."""
    g = generator("objective", seed)
    features = torch.randn(40, 5, generator=g, dtype=dtype)
    label = torch.randint(3, (40,), generator=g)
    at = torch.randn(5, 3, generator=g, dtype=dtype), torch.randn(3, generator=g, dtype=dtype)
    return Objective(features, label, weight_decay), at

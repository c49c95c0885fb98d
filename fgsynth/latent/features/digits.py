"""Handwritten digits in a long tail under random convolutions: the smallest benchmark, and offline."""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from fgsynth.latent.features.feature_set import REST, FeatureSet
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator, stable_seed

Ints = NDArray[np.int64]


def long_tail_counts(n_classes: int, n_max: int, n_min: int) -> Ints:
    """Class sizes from `n_max` down to `n_min`, n_max (n_min / n_max)^(i^2), i from 0 to 1.

    The square leaves a broad head, so that ten classes populate many, medium and few (our choice;
    the usual exponential profile would leave one class above 100).
    Raises UserError for sizes that do not fall, or below 2.
    """
    if not 2 <= n_min <= n_max:
        raise UserError(f"Class sizes from {n_max} down to {n_min}: need 2 <= n_min <= n_max.")
    i = np.linspace(0, 1, n_classes)
    return np.round(n_max * (n_min / n_max) ** (i**2)).astype(np.int64)


def long_tail_split(label: Ints, counts: Ints, n_val: int, n_test: int, seed: int) -> dict[str, Ints]:
    """Draw a long-tailed training set with balanced validation and test sets, disjoint: rows by split.

    Which class gets which of `counts` is drawn, so that no class is always the rare one. REST completes the
    training set to a balanced one. Raises UserError naming a class with too few samples.
    """
    rng = np.random.default_rng(stable_seed("long tail", seed))
    counts = rng.permutation(counts)
    held_out, largest = n_val + n_test, int(counts.max())
    parts: dict[str, list[Ints]] = {"train": [], "val": [], "test": [], REST: []}
    for y, n in enumerate(counts):
        mine = rng.permutation(np.flatnonzero(label == y))
        if len(mine) < held_out + largest:
            raise UserError(
                f"Class {y} has {len(mine)} samples, but {held_out + largest} are needed "
                "(n_test + n_val + n_max): lower one of them."
            )
        ends = [n_test, held_out, held_out + n, held_out + largest]
        for name, rows in zip(("test", "val", "train", REST), np.split(mine, ends), strict=False):
            parts[name].append(rows)
    split = {name: np.concatenate(part) for name, part in parts.items()}
    return split | {REST: np.sort(split[REST])}


def digits() -> tuple[Tensor, Tensor]:
    """Load scikit-learn's handwritten digits: images (1797, 1, 8, 8) in [0, 1], labels (1797,)."""
    pixels, label = load_digits(return_X_y=True)
    return torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 16, torch.from_numpy(label).long()


def random_convolution_features(images: Tensor, filters: int, seed: int = 0) -> Tensor:
    """Compute a frozen feature map: random 3x3 filters, ReLU, 2x2 average pooling, unit length, centred.

    Stands in for a frozen vision model where none can be fetched (single-layer features with
    random filters, Coates et al. 2011). (n, 1, h, w) -> (n, 4 * filters), mean squared length 1.
    """
    w = torch.randn(filters, 1, 3, 3, generator=generator("random filters", seed))
    w = F.normalize((w - w.mean((2, 3), keepdim=True)).flatten(1)).reshape_as(w)
    h = F.adaptive_avg_pool2d(F.conv2d(images, w, padding=1).relu(), 2)
    e = F.normalize(h.flatten(1))
    e = e - e.mean(0)
    return e / e.std()


def digits_lt(features: Tensor, label: Tensor, split: dict[str, Ints]) -> FeatureSet:
    """Collect the digits of one draw by split, from the features (n, k) and labels (n,) of all digits."""
    rows = torch.from_numpy(np.concatenate(list(split.values())))
    names = np.repeat(list(split), [len(part) for part in split.values()])
    return FeatureSet(features[rows], label[rows], names, tuple("0123456789"), "long-tailed digits")

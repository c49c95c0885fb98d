"""CIFAR-100-LT: the exponential long tail of CIFAR-100 (Cui et al. 2019; Cao et al. 2019)."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.datasets import CIFAR100

from fgsynth.data.sources import Images
from fgsynth.latent.features.feature_set import REST
from fgsynth.latent.features.sets import ImageSet
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import stable_seed


def exponential_counts(n_classes: int, n_max: int, imbalance: float) -> NDArray[np.int64]:
    """Class sizes n_max * imbalance^(-c / (n_classes - 1)), rounded down: (n_classes,), largest first.

    100 classes, n_max 500: 10,847 images at imbalance 100, 12,608 at 50, 19,573 at 10.
    Raises UserError for an imbalance below 1, or one that leaves the last class empty.
    """
    if n_classes < 2 or not 1 <= imbalance <= n_max:
        raise UserError(
            f"Imbalance {imbalance} of {n_classes} classes of at most {n_max} images: choose it between 1 "
            "and the images of the largest class, and at least 2 classes."
        )
    share = imbalance ** (-np.arange(n_classes) / (n_classes - 1))
    # Rounded first, as 500 / 100 computed by powers may fall below 5.
    return np.floor(np.round(n_max * share, 9)).astype(np.int64)


def cifar100_lt(folder: Path | str, imbalance: float = 100, n_val: int = 0, seed: int = 0) -> ImageSet:
    """Read CIFAR-100-LT from torchvision's files: train, val, rest of the 50,000, and the official test set.

    Classes keep CIFAR's order, so class 0 is the largest. The images of a class are shuffled by the seed
    (our choice; the paper's draw is not known): the last n_val are val; of the others the first n_c are
    train, with n_c exponential from 500 - n_val, and those left complete the balanced set.
    n_val = 0 is the usual benchmark, 10,847 images at imbalance 100. As its class 0 has no image to
    spare, settings are chosen with n_val > 0, whose training set is a part of the usual one, and then
    used with n_val = 0; the test set chooses nothing (our choice).
    torchvision compares the files' MD5 digests and then unpickles them; it holds all images in memory,
    184 MB. Nothing is downloaded. The order of the images does not depend on imbalance,
    n_val and seed, so their features are extracted once for all.
    Raises UserError where there are no intact files, for unequal classes, and for too large an n_val.
    """
    train, test = _official(folder)
    label = np.array(train.targets)
    split = thinned(label, len(train.classes), imbalance, n_val, seed)
    pixels = torch.cat([torch.from_numpy(np.ascontiguousarray(part.data)) for part in (train, test)])
    source = Images(pixels, torch.tensor([*train.targets, *test.targets]))
    names = np.concatenate([split, np.full(len(test.targets), "test")])
    return ImageSet(source, names, tuple(train.classes), "CIFAR-100-LT")


def thinned(
    label: NDArray[np.int64], n_classes: int, imbalance: float, n_val: int, seed: int
) -> NDArray[np.str_]:
    """Split a balanced training set as `cifar100_lt` does: the split of every image, (n,) names."""
    sizes = np.bincount(label, minlength=n_classes)
    pool = int(sizes.max())
    if (sizes < pool).any():
        y = int(sizes.argmin())
        raise UserError(f"Class {y} has {sizes[y]} images, others {pool}: start from a balanced set.")
    if not 0 <= n_val < pool:
        raise UserError(f"n_val = {n_val} of {pool} images per class: choose it between 0 and {pool - 1}.")
    split = np.full(len(label), REST, dtype="<U5")
    for y, n in enumerate(exponential_counts(n_classes, pool - n_val, imbalance)):
        rng = np.random.default_rng(stable_seed("CIFAR-100-LT", seed, y))
        mine = rng.permutation(np.flatnonzero(label == y))
        split[mine[:n]] = "train"
        split[mine[pool - n_val :]] = "val"
    return split


def _official(folder: Path | str) -> tuple[CIFAR100, CIFAR100]:
    try:
        return CIFAR100(str(folder), train=True), CIFAR100(str(folder), train=False)
    # What is missing or altered.
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise UserError(
            f"{folder} has no intact CIFAR-100 ({reason}): put the folder {CIFAR100.base_folder} of "
            f"{CIFAR100.url} there."
        ) from error

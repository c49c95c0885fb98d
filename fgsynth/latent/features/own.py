"""One's own images as feature sets: a folder or a published long tail, its features, its random splits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from fgsynth.config.schema import OfficialSets
from fgsynth.data.augment import plain
from fgsynth.data.disk import folders
from fgsynth.data.sources import ImageFiles, take
from fgsynth.latent.features.extract import extract
from fgsynth.latent.features.feature_set import FeatureSet, Strings
from fgsynth.latent.features.registry import loaded, official
from fgsynth.latent.features.sets import ImageSet
from fgsynth.utils.cache import content_digests
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import place as below_root
from fgsynth.utils.seeds import stable_seed

MINI_WORLD = "unclip:data/pretrained/mini-unclip"
"""The extractor of the images that stand in for a folder."""


@dataclass(frozen=True, eq=False)
class Own:
    """Images and their random splits.

    images: with the split that the folder or list has, "train" or "test" (others are left out); draw: seed ->
    the split of each image, (n,), of which 0 is that one.
    """

    images: ImageSet
    draw: Callable[[int], Strings]


def of_folder(place: str | Path) -> Own:
    """Load a folder with train/<class>/, or a CSV, as `folders.load` does, and draw its splits.

    Test is what the folder calls so, else its val, else the fifth of every class that is held out; settings
    are chosen by cross-validation, so that all else is trained on. Of images that are equal byte by byte
    within a class one is left. A split exchanges images between train and test within each class and group
    alone: class sizes stay, and a group that is one camera's or person's stays on its side.
    Raises UserError for images that are missing, a class alone, and where no class has an image to test.
    """
    found = folders.load(place)
    found.require_files()
    table, named = found.manifest.table, set(found.table["split"])
    if len(found.classes) < 2:
        raise UserError(f"{place} has one class, '{found.classes[0]}': give two or more to tell apart.")
    held = ("test", "final") if named & {"test", "final"} else ("val",)
    copy = pd.DataFrame({"label": table["label"], "bytes": content_digests([*map(Path, found.paths(table))])})
    table = table[~copy.duplicated()].reset_index(drop=True)
    split = np.where(table["split"].isin(held), "test", "train")
    if not (split == "test").any():
        raise UserError(f"{place}: no class has two images, so none can be tested: add some.")
    label = torch.tensor(table["label"].to_numpy())
    source = ImageFiles(tuple(found.paths(table)), label)
    cell = np.asarray(table.groupby(["label", "context"]).ngroup(), dtype=np.int64)
    return Own(ImageSet(source, split, found.classes, found.name), lambda seed: exchanged(split, cell, seed))


def exchanged(split: Strings, cell: NDArray[np.int64], seed: int) -> Strings:
    """Shuffle the splits of images within each cell (n,), so that it keeps its sizes; seed 0 leaves them."""
    drawn, rng = split.copy(), np.random.default_rng(stable_seed("own split", seed))
    for one in np.unique(cell) if seed else ():
        drawn[cell == one] = rng.permutation(split[cell == one])
    return drawn


def of_official(name: str, where: OfficialSets) -> Own:
    """CIFAR-100-LT, of which a seed draws the training images, or Places-LT, whose list stays.

    Raises UserError as `registry.official`.
    """
    return Own(official(name, 0, where), lambda seed: official(name, seed, where).split)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Features (n, k) and labels (n,) of all images; called with a seed, they have its split."""

    own: Own
    features: Tensor
    label: Tensor

    def __call__(self, seed: int) -> FeatureSet:
        """The feature set of a split. Raises UserError for features that `check_features` refuses."""
        images = self.own.images
        return FeatureSet(self.features, self.label, self.own.draw(seed), images.classes, images.name)


def featurise(own: Own, extractor: str, work: str) -> Drawn:
    """Extract the features of all images, or read those already there (see `features.extract`)."""
    return Drawn(own, *extract(loaded(extractor), own.images.source, below_root(work) / "features"))


def views(own: Own, rows: NDArray[np.int64], side: int = 64) -> NDArray[np.uint8]:
    """Images of some rows, (n, side, side, 3), for a look."""
    return plain(list(take(own.images.source, torch.from_numpy(rows))), side).numpy()

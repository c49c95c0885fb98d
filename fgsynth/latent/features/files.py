"""Ready-made features in one file each: npz, safetensors or parquet, read and written alike."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fgsynth.latent.checks import check_features
from fgsynth.latent.features.formats import READERS, SPLITS, WRITERS, Arrays
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import atomic

Strings = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features (n, k) float32, labels (n,) int64, the split of every row (n,), and the classes' names.

    name: what errors call it, a file for instance. Raises UserError, with it, for features that are not
    finite or not (n, k), other numbers of labels or splits, an unknown split, a name that stands twice, a
    label without a name, and for a class without a training row.
    """

    features: Tensor
    label: Tensor
    split: Strings
    classes: tuple[str, ...]
    name: str = "feature set"

    def __post_init__(self) -> None:
        check_features(self.features, self.label, f"features of {self.name}")
        self._check_splits()
        self._check_classes()

    def where(self, *splits: str) -> Tensor:
        """The rows of some splits, (m,) int64, in the set's order."""
        return torch.from_numpy(np.flatnonzero(np.isin(self.split, splits)))

    def part(self, *splits: str) -> tuple[Tensor, Tensor]:
        """Features and labels of some splits; "train" and "rest" together are the full balanced set.

        Raises UserError for a split without a row.
        """
        held = set(self.split.tolist())
        for split in splits:
            if split not in held:
                raise UserError(f"{self.name} has no split '{split}': choose of {_listed(held)}.")
        rows = self.where(*splits)
        return self.features[rows], self.label[rows]

    def counts(self) -> Tensor:
        """Training features per class, (c,)."""
        return self.label[self.where("train")].bincount(minlength=len(self.classes))

    def _check_splits(self) -> None:
        if self.split.shape != (len(self.features),):
            raise UserError(
                f"{self.name}: key 'split' has shape {self.split.shape} for {len(self.features)} features: "
                "give one split per row."
            )
        odd = np.flatnonzero(~np.isin(self.split, SPLITS))
        if odd.size:
            row, known = int(odd[0]), ", ".join(SPLITS)
            raise UserError(f"{self.name}: row {row} has split '{self.split[row]}': choose one of {known}.")

    def _check_classes(self) -> None:
        c = len(self.classes)
        twice = [name for i, name in enumerate(self.classes) if name in self.classes[:i]]
        if twice:
            raise UserError(f"{self.name}: key 'classes' has '{twice[0]}' twice: give every class one name.")
        wrong = ((self.label < 0) | (self.label >= c)).nonzero()
        if len(wrong):
            row = int(wrong[0])
            raise UserError(
                f"{self.name}: row {row} has label {int(self.label[row])}, but key 'classes' names classes 0 "
                f"to {c - 1}: correct the labels or name all classes."
            )
        untrained = (self.counts() == 0).nonzero()
        if len(untrained):
            y = int(untrained[0])
            held = sorted(set(self.split[(self.label == y).numpy()].tolist()), key=SPLITS.index)
            where = f"is in split '{held[0]}'" if held else "is in key 'classes'"
            raise UserError(
                f"{self.name}: class '{self.classes[y]}' {where} but has no training feature: add some or "
                "leave the class out."
            )


def read(path: Path | str) -> FeatureSet:
    """Ready-made features from an .npz, .safetensors or .parquet file; nothing is unpickled.

    Keys: "features" (n, k), any real type; "label" (n,), integers or names; optionally "split" (n,) of
    SPLITS (in safetensors their places in SPLITS), without which all rows are for training; optionally
    "classes" (c,), the names of labels 0..c-1 (in safetensors and parquet a JSON list in the metadata).
    Without classes, labels are mapped to 0..c-1 in sorted order and their values become the names.
    In parquet features are a column "feature" of lists, or columns f0, f1, ...
    Raises UserError naming the file, and the key or row, for what FeatureSet refuses or cannot be read.
    """
    path = Path(path)
    if path.suffix not in READERS:
        raise UserError(f"{path} is no file of features: end the name in one of {_listed(READERS)}.")
    if not path.is_file():
        raise UserError(f"There is no file of features at {path}: check the path.")
    return _as_set(str(path), READERS[path.suffix](path))


def write(path: Path | str, features: FeatureSet) -> None:
    """Write a set in the format of the path's suffix, atomically; `read` gives it back as it was.

    Raises UserError for a suffix that is no format.
    """
    path = Path(path)
    if path.suffix not in WRITERS:
        raise UserError(f"Cannot write features to {path}: end the name in one of {_listed(WRITERS)}.")
    held: Arrays = {
        "features": features.features.contiguous().numpy(),
        "label": features.label.contiguous().numpy(),
        "split": features.split,
        "classes": np.array(features.classes, dtype=np.str_),
    }
    with atomic(path) as partial:
        WRITERS[path.suffix](partial, held)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _as_set(name: str, held: Arrays) -> FeatureSet:
    for key in ("features", "label"):
        if key not in held:
            raise UserError(f"{name} has no key '{key}', only {_listed(held) or 'none'}: add it.")
    features = held["features"]
    if features.dtype.kind not in "fiu" or features.ndim != 2 or not features.size:
        raise UserError(
            f"{name}: key 'features' is {features.dtype} of shape {features.shape}: give numbers (n, k)."
        )
    for key in ("label", "split"):
        if key in held and held[key].shape != features.shape[:1]:
            raise UserError(
                f"{name}: key '{key}' has shape {held[key].shape} for {len(features)} features: give one "
                "per row."
            )
    label, classes = _mapped(name, held["label"], held.get("classes"))
    split = held.get("split", np.full(len(features), "train")).astype(np.str_)
    # What float32 cannot hold becomes infinite, and is then reported with its row.
    with np.errstate(over="ignore"):
        e = torch.from_numpy(np.require(features, np.float32, ["C", "W"]))
    return FeatureSet(e, torch.from_numpy(label.astype(np.int64)), split, classes, name)


def _mapped(
    name: str, label: NDArray[Any], classes: NDArray[Any] | None
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Labels as 0..c-1, and the names of the classes."""
    if label.dtype.kind not in "iuU":
        raise UserError(f"{name}: key 'label' is {label.dtype}: give integers or names.")
    if classes is None:
        values, places = np.unique(label, return_inverse=True)
        return places, tuple(str(value) for value in values)
    if classes.ndim != 1 or classes.dtype.kind != "U":
        raise UserError(
            f"{name}: key 'classes' is {classes.dtype} of shape {classes.shape}: give names (c,)."
        )
    if label.dtype.kind == "U":
        raise UserError(f"{name}: key 'label' has names beside key 'classes': give integers, or no classes.")
    return label, tuple(classes.tolist())

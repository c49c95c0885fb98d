"""Feature sets: features of a benchmark with labels and splits, checked as they are made."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fgsynth.latent.checks import check_features
from fgsynth.utils.errors import UserError

REST = "rest"
"""The split that completes the long-tailed training set to a balanced one."""
Strings = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features of a benchmark, (n, k) float32, with labels, (n,) int64 from 0 to c - 1, and splits.

    split: (n,), "train", "val", "test", "final" or REST per row; classes: the names of the c classes; name:
    what errors call the set. Raises UserError for other features or labels, naming the row.
    """

    features: Tensor
    label: Tensor
    split: Strings
    classes: tuple[str, ...]
    name: str = "feature set"

    def __post_init__(self) -> None:
        check_features(self.features, self.label, f"features of {self.name}")

    def where(self, *splits: str) -> Tensor:
        """Row numbers of some splits, (m,) int64, ascending."""
        return torch.from_numpy(np.flatnonzero(np.isin(self.split, splits)))

    def part(self, *splits: str) -> tuple[Tensor, Tensor]:
        """Features and labels of some splits. Raises UserError for a split without a row."""
        held = set(self.split.tolist())
        for split in splits:
            if split not in held:
                known = ", ".join(sorted(held))
                raise UserError(f"{self.name} has no split '{split}': choose one of {known}.")
        rows = self.where(*splits)
        return self.features[rows], self.label[rows]

    def counts(self) -> Tensor:
        """Training features per class, (c,)."""
        return self.label[self.where("train")].bincount(minlength=len(self.classes))

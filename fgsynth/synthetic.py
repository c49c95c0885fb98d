"""Synthetic sets, as classifiers are trained on them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from fgsynth.batches import Pictures
from fgsynth.plans import share_of


@dataclass(frozen=True)
class SyntheticSet:
    """Synthetic pictures in the order of their index, and the digest of what made them."""

    index: pd.DataFrame
    x: Tensor
    digest: str

    @property
    def pictures(self) -> Pictures:
        """What a classifier is trained on."""
        return Pictures(self.x, torch.tensor(self.index["label"].to_numpy()))

    def part(self, amount: float, whole: float) -> "SyntheticSet":
        """The first `amount` times the missing pictures of a set of `whole` times (FG figure 12)."""
        return self.rows(share_of(self.index, amount, whole), f"{self.digest}-{amount}")

    def rows(self, mine: NDArray[np.bool_], digest: str = "") -> "SyntheticSet":
        """Some of the pictures; without a digest they are only to be looked at."""
        index = self.index[mine].reset_index(drop=True)
        return SyntheticSet(index, self.x[torch.tensor(mine)], digest)

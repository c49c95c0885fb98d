"""The contract of latent samplers, and how many features each class lacks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from fgsynth.latent.checks import ClassError, Validated, by_class, check_counts, check_features


class LatentSampler(Validated, ABC):
    """A class-conditional distribution in feature space: fitted on real features, yields synthetic ones.

    A scikit-learn estimator: its parameters are validated when it is fitted. Row i of class y depends only on
    (sampler, seed, y, i): not on how many rows, nor on which classes are drawn. Fitting again forgets the
    earlier fit. No method changes a parameter.
    """

    _classes: Mapping[int, Any] = {}
    _k = 0

    def fit(self, features: Tensor, label: Tensor) -> Self:
        """Fit on real features (n, k), float32, and their class numbers (n,), int64, from 0 up.

        Raises UserError for other features or labels, a parameter out of range, and for what the sampler
        cannot be fitted to.
        """
        self._validate_params()
        check_features(features, label)
        self._classes, self._k = self._fit(by_class(features, label)), features.shape[1]
        return self

    def sample(self, y: int, n: int, seed: int, *, start: int = 0) -> Tensor:
        """Rows start..start + n of class `y`, (n, k) float32. Raises UserError for a class not fitted."""
        if y not in self._classes:
            raise ClassError(y, "Class {} was not fitted: it has no real features.")
        return self._rows(y, start, start + n, seed)

    def sample_all(self, counts: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """The first counts[y] rows of every class y, counts (c,) int64: features and labels, by class."""
        check_counts(counts)
        features, end = torch.empty(int(counts.sum()), self._k), 0
        for y, n in enumerate(counts.tolist()):
            if n:
                features[end : end + n] = self.sample(y, n, seed)
                end += n
        return features, torch.arange(len(counts)).repeat_interleave(counts)

    @abstractmethod
    def _fit(self, groups: dict[int, Tensor]) -> Mapping[int, Any]:
        """Fit the parameters of each class to its features (n_y, k)."""

    @abstractmethod
    def _rows(self, y: int, start: int, stop: int, seed: int) -> Tensor:
        """Rows start..stop of a fitted class, (stop - start, k)."""


def fill_counts(label: Tensor, n_classes: int) -> Tensor:
    """How many features each class lacks of the largest: (n_classes,) int64, from labels (n,) int64."""
    counts = label.bincount(minlength=n_classes)
    return counts.max() - counts

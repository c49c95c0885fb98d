"""Wrappers of latent samplers: keep the rows nearest to the class mean, and stay on the unit sphere."""

from numbers import Real
from typing import Any, ClassVar, Self

import torch
from sklearn.base import clone
from sklearn.utils._param_validation import Interval
from torch import Tensor
from torch.nn import functional as F

from fgsynth.latent.checks import ClassError, check_features
from fgsynth.latent.samplers.base import LatentSampler
from fgsynth.latent.samplers.noise import CHUNK, cut

SHORTEST = 1e-12
"""Length below which a feature counts as zero."""


class _Wrapper(LatentSampler):
    """A sampler that changes what a fitted copy of another one draws, chunk by chunk."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {"sampler": [LatentSampler]}

    def __init__(self, sampler: LatentSampler) -> None:
        self.sampler = sampler

    def _fit(self, groups: dict[int, Tensor]) -> dict[int, Tensor]:
        """Fit a copy of the sampler; the class means, (k,) each, are left."""
        label = torch.tensor(list(groups)).repeat_interleave(torch.tensor([len(x) for x in groups.values()]))
        self._inner = clone(self.sampler).fit(torch.cat(list(groups.values())), label)
        return {y: x.mean(0) for y, x in groups.items()}

    def _chunk(self, y: int, j: int, seed: int) -> Tensor:
        return self._inner.sample(y, CHUNK, seed, start=CHUNK * j)


class NearestKept(_Wrapper):
    """Filtered latent sampler: of every 128 rows of a class, those nearest to the mean of its real features.

    A copy of the sampler is fitted. keep: the share that is kept, in the order drawn; nearest by the
    Euclidean distance.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **_Wrapper._parameter_constraints,
        "keep": [Interval(Real, 0, 1, closed="right")],
    }

    def __init__(self, sampler: LatentSampler, keep: float = 0.5) -> None:
        super().__init__(sampler)
        self.keep = keep

    def _rows(self, y: int, start: int, stop: int, seed: int) -> Tensor:
        best = max(1, round(CHUNK * self.keep))

        def chunk(j: int) -> Tensor:
            x = self._chunk(y, j, seed)
            score = -(x - self._classes[y]).norm(dim=1)
            return x[score.argsort(descending=True, stable=True)[:best].sort().values]

        return cut(chunk, start, stop, best)


class OnSphere(_Wrapper):
    """A latent sampler on the unit sphere: fitted on features of unit length, its rows projected back.

    For features that are compared by their angle, such as CLIP's.
    """

    def fit(self, features: Tensor, label: Tensor) -> Self:
        """As `LatentSampler.fit`. Raises UserError for a feature that is zero, too."""
        check_features(features, label)
        zero = features.norm(dim=1) < SHORTEST
        if zero.any():
            row = int(zero.nonzero()[0])
            raise ClassError(
                int(label[row]),
                f"Row {row} of the features (class {{}}) has no direction, it is zero: drop it.",
            )
        return super().fit(F.normalize(features, eps=SHORTEST), label)

    def _rows(self, y: int, start: int, stop: int, seed: int) -> Tensor:
        return cut(lambda j: F.normalize(self._chunk(y, j, seed), eps=SHORTEST), start, stop)

"""Wrappers of latent samplers: keep the best of what one draws, and stay on the unit sphere."""

from copy import deepcopy
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from fgsynth.latent.checks import by_class, check_features
from fgsynth.latent.samplers.base import LatentSampler, known_class, sample_classes
from fgsynth.latent.samplers.noise import CHUNK, cut
from fgsynth.utils.errors import UserError

SHORTEST = 1e-12
"""Length below which a feature counts as zero."""


class HasLogits(Protocol):
    """A fitted classifier of features."""

    def logits(self, features: Tensor) -> Tensor:
        """Logits (n, c) of features (n, k)."""
        ...


class Filtered:
    """Filtered latent sampler: oversamples, and keeps what lies near its prototype or convinces a classifier.

    Of every 128 rows that `sampler` draws for a class, the best round(128 keep) are kept, in their order:
    those nearest to the mean of the class's real features (Euclidean), or with a `probe` those to which it
    gives the class the highest probability. keep None keeps all rows that the probe gives to the class; it
    gives up when they are fewer than one in `rounds`.
    """

    def __init__(
        self,
        sampler: LatentSampler,
        keep: float | None = 0.5,
        probe: HasLogits | None = None,
        rounds: int = 20,
    ) -> None:
        if keep is None and probe is None:
            raise UserError("Keep None keeps what a classifier gives to its class: give a probe or a share.")
        if keep is not None and not 0 < keep <= 1:
            raise UserError(f"Keep {keep}: give a share above 0 and at most 1, or None with a probe.")
        if rounds < 1:
            raise UserError(f"{rounds} rounds: give at least 1.")
        self.sampler = sampler
        self.keep = keep
        self.probe = probe
        self.rounds = rounds
        self._fitted = sampler
        self._mean: dict[int, Tensor] = {}

    def fit(self, features: Tensor, label: Tensor) -> Self:
        """Fit a copy of the sampler on features (n, k), label (n,). Raises UserError as the sampler does."""
        check_features(features, label)
        self._fitted = deepcopy(self.sampler).fit(features, label)
        self._mean = {y: x.mean(0) for y, x in by_class(features, label).items()}
        return self

    def sample(self, y: int, n: int, seed: int, *, start: int = 0) -> Tensor:
        """Rows start..start + n of class `y`, (n, k).

        Raises UserError for a class that was not fitted, or of which the probe accepts too few rows.
        """
        known_class(y, self._mean)
        if self.keep is None:
            return self._accepted(y, start, start + n, seed)
        best = max(1, round(CHUNK * self.keep))
        return cut(lambda j: self._best(y, j, best, seed), start, start + n, best)

    def _best(self, y: int, j: int, best: int, seed: int) -> Tensor:
        """The best rows of chunk j of class `y`, (best, k)."""
        x = self._fitted.sample(y, CHUNK, seed, start=CHUNK * j)
        if self.probe is None:
            score = -(x - self._mean[y]).norm(dim=1)
        else:
            score = self._logits(x, y).log_softmax(1)[:, y]
        return x[score.argsort(descending=True, stable=True)[:best].sort().values]

    def _logits(self, x: Tensor, y: int) -> Tensor:
        """The classifier's logits (n, c) of features (n, k). Raises UserError unless it knows class `y`."""
        assert self.probe is not None
        logits = self.probe.logits(x)
        if y >= logits.shape[1]:
            raise UserError(
                f"Class {y} is unknown to the classifier, which has {logits.shape[1]}: fit it on all."
            )
        return logits

    def _accepted(self, y: int, start: int, stop: int, seed: int) -> Tensor:
        """Rows start..stop of those that the probe gives to class `y`, gone through from the first chunk on.

        At most `rounds` chunks are drawn for every 128 rows up to `stop`.
        """
        kept, found = [torch.empty(0, len(self._mean[y]))], 0
        most = self.rounds * max(1, -(-stop // CHUNK))
        for j in range(most):
            if found >= stop:
                break
            x = self._fitted.sample(y, CHUNK, seed, start=CHUNK * j)
            x = x[self._logits(x, y).argmax(1) == y]
            kept.append(x[max(start - found, 0) : max(stop - found, 0)])
            found += len(x)
        if found < stop:
            raise UserError(
                f"Class {y}: the classifier gives it {found} of {most * CHUNK} drawn features, {stop} are "
                "needed: keep a share instead, raise rounds, or take a sampler closer to the class."
            )
        return torch.cat(kept)

    def sample_all(self, counts: Tensor, seed: int, *, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """counts[y] rows of every class: features, labels, sorted by class."""
        k = len(next(iter(self._mean.values()), ()))
        return sample_classes(self, k, counts, seed, start)


class OnSphere:
    """A latent sampler on the unit sphere: fitted on features of unit length, its samples projected back.

    For features that are compared by their angle, such as CLIP's.
    """

    def __init__(self, sampler: LatentSampler) -> None:
        self.sampler = sampler
        self._fitted: LatentSampler | None = None
        self._k = 0

    def fit(self, features: Tensor, label: Tensor) -> Self:
        """Fit a copy of the sampler. Raises UserError for a feature that is zero, and as the sampler does."""
        check_features(features, label)
        zero = features.norm(dim=1) < SHORTEST
        if zero.any():
            row = int(zero.nonzero()[0])
            raise UserError(
                f"Row {row} of the features (class {int(label[row])}) has no direction, it is zero: drop it."
            )
        self._fitted = deepcopy(self.sampler).fit(F.normalize(features, eps=SHORTEST), label)
        self._k = features.shape[1]
        return self

    def sample(self, y: int, n: int, seed: int, *, start: int = 0) -> Tensor:
        """Rows start..start + n of class `y`, (n, k), of length 1. Raises UserError as the sampler does."""
        fitted = self._fitted
        if fitted is None:
            raise UserError(f"Class {y} was not fitted: fit the sampler first.")

        def chunk(j: int) -> Tensor:
            return F.normalize(fitted.sample(y, CHUNK, seed, start=CHUNK * j), eps=SHORTEST)

        return cut(chunk, start, start + n)

    def sample_all(self, counts: Tensor, seed: int, *, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """counts[y] rows of every class: features, labels, sorted by class."""
        return sample_classes(self, self._k, counts, seed, start)

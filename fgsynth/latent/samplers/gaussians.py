"""Gaussian latent samplers: per class, tied, and calibrated by the nearest head classes."""

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from fgsynth.data.benchmark import MANY_ABOVE
from fgsynth.latent.checks import by_class, check_features
from fgsynth.latent.covariance import Pooled, Shrinkage, low_rank, pooled
from fgsynth.latent.samplers.base import known_class, sample_classes
from fgsynth.latent.samplers.noise import CHUNK, chunk_generator, cut
from fgsynth.utils.errors import UserError


@dataclass(frozen=True)
class LowRank:
    """A normal distribution whose covariance is never formed.

    weight * (sum of F^T F) + isotropic * I + share * pooled; mean (k,), factors F (r, k) each, float32.
    Factors may be shared with other classes, hence their weight.
    """

    mean: Tensor
    factors: tuple[Tensor, ...]
    isotropic: float
    share: float = 0.0
    weight: float = 1.0


def fit_normal(x: Tensor, shrinkage: Shrinkage, weight: float = 1.0) -> LowRank:
    """Mean and `weight` times the shrunk covariance of rows (n, k); the covariance of one row is 0."""
    mean = x.mean(0, dtype=torch.double).float()
    if len(x) < 2 or weight == 0:
        return LowRank(mean, (), 0.0)
    factor, isotropic = low_rank(x, shrinkage)
    return LowRank(mean, (factor.float(),), weight * isotropic, weight=weight)


def draw(name: str, d: LowRank, tied: Pooled | None, seed: int, y: int, start: int, stop: int) -> Tensor:
    """Rows start..stop of a normal distribution, (stop - start, k) float32, by its independent parts.

    u_r @ F_r of every factor, and one part for the rest: N(0, isotropic I + share * pooled) has the axes of
    the pooled covariance, so z * sqrt(isotropic + share * variance) @ turn draws it.
    """
    widths = [len(d.mean), *(len(f) for f in d.factors)]
    borrowed = tied if d.share else None
    variance = torch.tensor(d.isotropic) if borrowed is None else d.isotropic + d.share * borrowed.variance
    scale = variance.sqrt().float()

    def chunk(j: int) -> Tensor:
        z, *us = torch.randn(CHUNK, sum(widths), generator=chunk_generator(name, seed, y, j)).split(widths, 1)
        rest = z * scale
        x = d.mean + (rest if borrowed is None else rest @ borrowed.turn)
        for u, factor in zip(us, d.factors, strict=True):
            x.addmm_(u, factor, alpha=math.sqrt(d.weight))
        return x

    return cut(chunk, start, stop)


class Gaussian:
    """Class-Gaussian latent sampler: one normal distribution per class, with shrunk covariance.

    Sigma_y = a S_y + (1 - a) S_pooled, S by OAS or Ledoit-Wolf shrinkage, a = n_y / (n_y + strength): the
    fewer rows a class has, the more it borrows the pooled within-class covariance. strength 0 borrows
    nothing; infinity gives all classes the pooled one (tied covariance, as in linear discriminant
    analysis). The own covariance of a class with one row is 0. LS does not print its sampler: this one is
    our choice.
    """

    def __init__(self, strength: float = 20.0, shrinkage: Shrinkage = "oas") -> None:
        if not strength >= 0:
            raise UserError(f"Strength {strength}: give 0 (borrow nothing) or more.")
        self.strength = strength
        self.shrinkage = shrinkage
        self._classes: dict[int, LowRank] = {}
        self._tied: Pooled | None = None
        self._k = 0

    def fit(self, features: Tensor, label: Tensor) -> Self:
        """Features (n, k), label (n,). Raises UserError for a class of one row with nothing to borrow."""
        check_features(features, label)
        groups = by_class(features, label)
        tied = pooled(groups, self.shrinkage) if self.strength else None
        classes = {}
        for y, x in groups.items():
            if len(x) < 2 and tied is None:
                raise UserError(
                    f"Class {y} has 1 feature, no covariance of its own and none to borrow: "
                    "set strength above 0 and give a class with two features or more."
                )
            a = len(x) / (len(x) + self.strength)
            classes[y] = replace(fit_normal(x, self.shrinkage, a), share=1 - a)
        self._classes, self._tied, self._k = classes, tied, features.shape[1]
        return self

    def sample(self, y: int, n: int, seed: int, *, start: int = 0) -> Tensor:
        """Rows start..start + n of class `y`, (n, k). Raises UserError for a class that was not fitted."""
        known_class(y, self._classes)
        return draw("gaussian", self._classes[y], self._tied, seed, y, start, start + n)

    def sample_all(self, counts: Tensor, seed: int, *, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """counts[y] rows of every class: features, labels, sorted by class."""
        return sample_classes(self, self._k, counts, seed, start)


class DistributionCalibration:
    """Distribution calibration: a rare class borrows mean and covariance from the nearest head classes.

    Of a class with fewer than `head` rows (Yang et al., "Free Lunch for Few-Shot Learning: Distribution
    Calibration", ICLR 2021, eqs. 4 to 6): mean = (own mean + sum of the m nearest head means) / (m + 1),
    covariance = the average of theirs + alpha v I, v their mean variance per dimension; nearest by the
    Euclidean distance of means. Head classes keep their own. Where we differ: covariances are shrunk, a
    class has one distribution (theirs: one per sample), no power transform, and alpha is a share of the
    variance on the diagonal (theirs: added to every entry), so that it does not depend on the scale of
    the features. m is `neighbours`, or all head classes
    where they are fewer.
    """

    def __init__(
        self, neighbours: int = 2, alpha: float = 0.2, head: int = MANY_ABOVE, shrinkage: Shrinkage = "oas"
    ) -> None:
        if neighbours < 1 or not 0 <= alpha < math.inf or head < 2:
            raise UserError(
                f"neighbours {neighbours}, alpha {alpha}, head {head}: need neighbours >= 1, "
                "a finite alpha >= 0 and head >= 2."
            )
        self.neighbours = neighbours
        self.alpha = alpha
        self.head = head
        self.shrinkage = shrinkage
        self._classes: dict[int, LowRank] = {}
        self._k = 0

    def fit(self, features: Tensor, label: Tensor) -> Self:
        """Features (n, k), label (n,). Raises UserError where no class has `head` rows."""
        check_features(features, label)
        groups = by_class(features, label)
        heads = {y: fit_normal(x, self.shrinkage) for y, x in groups.items() if len(x) >= self.head}
        if not heads:
            largest = max(groups, key=lambda y: len(groups[y]))
            raise UserError(
                f"The largest class, {largest}, has {len(groups[largest])} features and head is {self.head}: "
                "no class can be borrowed from, set head lower."
            )
        rare = {y: self._calibrated(x, list(heads.values())) for y, x in groups.items() if y not in heads}
        self._classes, self._k = heads | rare, features.shape[1]
        return self

    def _calibrated(self, x: Tensor, heads: list[LowRank]) -> LowRank:
        """The distribution of a class with the rows (n, k)."""
        own = x.mean(0, dtype=torch.double)
        centres = torch.stack([d.mean for d in heads]).double()
        k = min(self.neighbours, len(heads))
        near = (centres - own).norm(dim=1).topk(k, largest=False).indices
        lent = [heads[i] for i in near.tolist()]
        factors = tuple(f for d in lent for f in d.factors)
        isotropic = sum(d.isotropic for d in lent) / k
        variance = isotropic + sum(float(f.square().sum()) for f in factors) / k / len(own)
        mean = (own + centres[near].sum(0)) / (k + 1)
        return LowRank(mean.float(), factors, isotropic + self.alpha * variance, weight=1 / k)

    def sample(self, y: int, n: int, seed: int, *, start: int = 0) -> Tensor:
        """Rows start..start + n of class `y`, (n, k). Raises UserError for a class that was not fitted."""
        known_class(y, self._classes)
        return draw("calibration", self._classes[y], None, seed, y, start, start + n)

    def sample_all(self, counts: Tensor, seed: int, *, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """counts[y] rows of every class: features, labels, sorted by class."""
        return sample_classes(self, self._k, counts, seed, start)

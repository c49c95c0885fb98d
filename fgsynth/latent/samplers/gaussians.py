"""Gaussian latent samplers: per class, tied, of shrunk means, and calibrated by the nearest head classes."""

import math
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor

from fgsynth.data.benchmark import MANY_ABOVE
from fgsynth.latent.checks import ClassError
from fgsynth.latent.covariance import Pooled, low_rank, pooled
from fgsynth.latent.samplers.base import LatentSampler
from fgsynth.latent.samplers.noise import CHUNK, chunk_generator, cut, normal
from fgsynth.latent.shrinkage import MeanPosterior, Whitening, shrunk_means


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


def fit_normal(x: Tensor, weight: float = 1.0) -> LowRank:
    """Mean and `weight` times the shrunk covariance of rows (n, k); the covariance of one row is 0."""
    mean = x.mean(0, dtype=torch.double).float()
    if len(x) < 2 or weight == 0:
        return LowRank(mean, (), 0.0)
    factor, isotropic = low_rank(x)
    return LowRank(mean, (factor.float(),), weight * isotropic, weight=weight)


def draw(name: str, d: LowRank, tied: Pooled | None, seed: int, y: int, start: int, stop: int) -> Tensor:
    """Draw rows start..stop of a normal distribution, (stop - start, k) float32, by its independent parts.

    u_r @ F_r of every factor, and one part for the rest: N(0, isotropic I + share * pooled) has the axes of
    the pooled covariance, so z * sqrt(isotropic + share * variance) @ turn draws it.
    """
    widths = [len(d.mean), *(len(f) for f in d.factors)]
    borrowed = tied if d.share else None
    variance = torch.tensor(d.isotropic) if borrowed is None else d.isotropic + d.share * borrowed.variance
    scale = variance.sqrt().float()

    def chunk(j: int) -> Tensor:
        """Rows 128 j to 128 (j + 1)."""
        z, *us = torch.randn(CHUNK, sum(widths), generator=chunk_generator(name, seed, y, j)).split(widths, 1)
        rest = z * scale
        x = d.mean + (rest if borrowed is None else rest @ borrowed.turn)
        for u, factor in zip(us, d.factors, strict=True):
            x.addmm_(u, factor, alpha=math.sqrt(d.weight))
        return x

    return cut(chunk, start, stop)


class Gaussian(LatentSampler):
    """Class Gaussian: one normal distribution per class, with shrunk covariance.

    Sigma_y = a S_y + (1 - a) S_pooled, S shrunk by OAS, a = n_y / (n_y + strength): the fewer rows a class
    has, the more it borrows the pooled within-class covariance. The covariance S_y of one row is 0. The
    sampler of LS is not known: this one is our choice. strength: 0 borrows nothing; infinity gives all
    classes the pooled covariance (tied, as in linear discriminant analysis).

    `fit` raises UserError for a class of one row with nothing to borrow.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {"strength": [Interval(Real, 0, None, closed="both")]}

    def __init__(self, strength: float = 20.0) -> None:
        self.strength = strength

    def _fit(self, groups: dict[int, Tensor]) -> dict[int, LowRank]:
        tied = pooled(groups) if self.strength else None
        classes = {}
        for y, x in groups.items():
            if len(x) < 2 and tied is None:
                raise ClassError(
                    y, "Class {} has 1 feature, no covariance of its own and none to borrow: "
                    "set strength above 0 and give a class with two features or more.",
                )  # fmt: skip
            a = len(x) / (len(x) + self.strength)
            classes[y] = replace(fit_normal(x, a), share=1 - a)
        self._tied = tied
        return classes

    def _rows(self, y: int, start: int, stop: int, seed: int) -> Tensor:
        return draw("gaussian", self._classes[y], self._tied, seed, y, start, stop)


class ShrunkMeans(LatentSampler):
    """Shrunk class means with tied covariance: the predictive distribution of an empirical-Bayes Gaussian.

    In the space whitened by the pooled within-class covariance a row of class y is normal around the shrunk
    mean (`shrinkage.shrunk_means`) with variance 1 + f / n_y along every component: 1 of the row itself, and
    what n_y rows leave unknown of the mean. No parameters. The sampler of LS is not known: this one is our
    choice. `fit` raises UserError where no class has two features, and where none varies.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {}

    def _fit(self, groups: dict[int, Tensor]) -> dict[int, MeanPosterior]:
        self._whitening = Whitening.fit(groups)
        return shrunk_means(groups, self._whitening)

    def _rows(self, y: int, start: int, stop: int, seed: int) -> Tensor:
        own: MeanPosterior = self._classes[y]

        def chunk(j: int) -> Tensor:
            """Rows 128 j to 128 (j + 1)."""
            z = normal("shrunk means", seed, y, j * CHUNK, (j + 1) * CHUNK, self._k)
            return (own.mean + z * math.sqrt(1 + own.spread**2)) @ self._whitening.back

        return cut(chunk, start, stop)


class DistributionCalibration(LatentSampler):
    """Distribution calibration: a rare class borrows mean and covariance from the nearest head classes.

    Yang et al., "Free Lunch for Few-Shot Learning: Distribution Calibration", ICLR 2021, eqs. 4 to 6:
    mean = (own mean + sum of the m nearest head means) / (m + 1), covariance = the average of theirs +
    alpha v I, v their mean variance per dimension; nearest by the Euclidean distance of means. Head classes
    keep their own. Where we differ: covariances are shrunk, a class has one distribution (theirs: one per
    sample), no power transform, and alpha is a share of the variance on the diagonal (theirs: added to every
    entry), so that it does not depend on the scale of the features.

    neighbours: m, or all head classes where they are fewer; alpha: share of the variance that is added; head:
    rows from which a class is a head class. Where no class has as many, the m largest of two rows or more
    are. `fit` raises UserError where no class has two rows.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "neighbours": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "head": [Interval(Integral, 2, None, closed="left")],
    }

    def __init__(self, neighbours: int = 2, alpha: float = 0.2, head: int = MANY_ABOVE) -> None:
        self.neighbours = neighbours
        self.alpha = alpha
        self.head = head

    def _fit(self, groups: dict[int, Tensor]) -> dict[int, LowRank]:
        largest = sorted((y for y, x in groups.items() if len(x) > 1), key=lambda y: -len(groups[y]))
        if not largest:
            raise ClassError(
                min(groups), "Class {} has 1 feature, as all classes have: no class can be borrowed from, "
                "give one with two features or more.",
            )  # fmt: skip
        chosen = [y for y in largest if len(groups[y]) >= self.head] or largest[: self.neighbours]
        heads = {y: fit_normal(groups[y]) for y in sorted(chosen)}
        lenders = list(heads.values())
        return heads | {y: self._calibrated(x, lenders) for y, x in groups.items() if y not in heads}

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

    def _rows(self, y: int, start: int, stop: int, seed: int) -> Tensor:
        return draw("calibration", self._classes[y], None, seed, y, start, stop)

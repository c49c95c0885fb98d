"""Class means shrunk towards each other, in the space where features are white within classes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fgsynth.latent.covariance import pooled, with_spread
from fgsynth.utils.errors import UserError

HALVINGS = 60
"""Of the interval that holds the variance between classes."""


@dataclass(frozen=True)
class Whitening:
    """PCA whitening within classes, largest variance first: z = x @ forward, x = z @ back; both (k, k)."""

    forward: Tensor
    back: Tensor

    @classmethod
    def fit(cls, groups: dict[int, Tensor]) -> "Whitening":
        """By the pooled within-class covariance, unbiased and shrunk by OAS, of features (n_y, k) by class.

        Shrinkage leaves a little variance where nothing varies, so that more dimensions than
        rows are no trouble. Raises UserError where no class has two features, and where none varies.
        """
        tied, spread = pooled(groups), with_spread(groups)
        if tied is None:
            raise UserError(
                "No class has two features, so nothing tells how features vary: give at least one class two."
            )
        if not tied.variance[-1] > 0:
            raise UserError("The features of every class are all equal: give features that vary.")
        n = sum(map(len, spread))
        # The floor is for rounding alone, far below anything that varies.
        variance = tied.variance.clamp(min=float(tied.variance[-1]) * 1e-12).flip(0) * n / (n - len(spread))
        scale, turn = variance.sqrt().float(), tied.turn.flip(0)
        return cls(turn.T / scale, turn * scale[:, None])


@dataclass(frozen=True)
class MeanPosterior:
    """What n rows tell of a class mean in whitened space: normal around `mean` (k,), deviation `spread`."""

    mean: Tensor
    spread: float
    n: int


def shrunk_means(groups: dict[int, Tensor], whitening: Whitening) -> dict[int, MeanPosterior]:
    """Empirical-Bayes class means in whitened space, by class (Efron and Morris 1973).

    groups: features (n_y, k) by class. The mean m_y of a class's rows is off by a variance of 1 / n_y along
    every whitened component. With true means normal around g with variance v, the true mean is normal around
    g + f (m_y - g) with variance f / n_y, f = v / (v + 1 / n_y): the fewer rows a class has, the more it is
    shrunk. g and v weigh every class by its precision 1 / (v + 1 / n_y), so that means of single rows, which
    are mostly noise, do not pass for a difference between classes: v is the variance at which the weighted
    squares about g have their expected sum (Paule and Mandel 1982). One v for all components, as ten classes
    would tell each of a hundred too little.
    """
    means = torch.stack([x.mean(0, dtype=torch.double) for x in groups.values()]) @ whitening.forward.double()
    counts = [len(x) for x in groups.values()]
    error = 1 / torch.tensor(counts, dtype=torch.double)[:, None]
    # One class alone tells nothing of where others lie.
    v = _between(means, error) if len(groups) > 1 else float("inf")
    f = 1 / (1 + error / v) if v > 0 else torch.zeros_like(error)
    centre = _centre(means, error, v) if v < float("inf") else means[0]
    spread = (f * error).sqrt().flatten().tolist()
    parts = zip(groups, (centre + f * (means - centre)).float(), spread, counts, strict=True)
    return {y: MeanPosterior(mean, deviation, n) for y, mean, deviation, n in parts}


def _centre(means: Tensor, error: Tensor, v: float) -> Tensor:
    weight = 1 / (v + error)
    return (weight * means).sum(0) / weight.sum()


def _between(means: Tensor, error: Tensor) -> float:
    """The variance v at which sum_y |m_y - g|^2 / (v + 1 / n_y) = (c - 1) k, of means (c, k); 0 at least."""

    def excess(v: float) -> float:
        squares = (means - _centre(means, error, v)).square() / (v + error)
        return float(squares.sum()) - (len(means) - 1) * means.shape[1]

    if excess(0.0) <= 0:
        return 0.0
    # At this variance the sum is too small: each of its terms is below the plain square over it.
    low, high = 0.0, 2 * float((means - means.mean(0)).square().sum()) / means.shape[1]
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low + high) / 2

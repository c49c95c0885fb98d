"""Latent samplers around single features: kernel density estimation and SMOTE."""

import math
from typing import Literal, Self

import numpy as np
import torch
from imblearn.over_sampling import SMOTE
from torch import Tensor

from fgsynth.latent.checks import by_class, check_features
from fgsynth.latent.covariance import variance, with_spread
from fgsynth.latent.samplers.base import known_class, sample_classes
from fgsynth.latent.samplers.noise import CHUNK, cut, integers, normal
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import stable_seed

Rule = Literal["scott", "silverman"]


def bandwidth_factor(bandwidth: float | Rule, n: int, k: int) -> float:
    """The bandwidth h in units of the standard deviation, for n rows in k dimensions.

    "scott": n^(-1/(k+4)). "silverman": (n (k+2) / 4)^(-1/(k+4)) (as in scipy's gaussian_kde). A number is
    itself. In hundreds of dimensions both rules are close to 1, so that a feature is moved about as far as
    the class is wide. Raises UserError for another name, or a number that is negative or infinite.
    """
    if bandwidth == "scott":
        return float(n ** (-1 / (k + 4)))
    if bandwidth == "silverman":
        return float((n * (k + 2) / 4) ** (-1 / (k + 4)))
    try:
        h = float(bandwidth)
    except ValueError:
        h = math.nan
    if not 0 <= h < math.inf:
        raise UserError(f"Bandwidth '{bandwidth}': choose 'scott', 'silverman' or a number from 0 up.")
    return h


class KernelDensity:
    """Kernel-density latent sampler (smoothed bootstrap): a feature of the class plus Gaussian noise.

    x_j + h sigma * w, j uniform over the class, w standard normal, h by `bandwidth_factor` with the class's
    n_y, sigma the standard deviation per dimension: of the pooled within-class variance, or of the class
    itself. So the covariance is S_y + h^2 diag(sigma^2). A dimension without variance stays as it is.
    """

    def __init__(
        self, bandwidth: float | Rule = "scott", spread: Literal["pooled", "class"] = "pooled"
    ) -> None:
        bandwidth_factor(bandwidth, 1, 1)
        if spread not in ("pooled", "class"):
            raise UserError(f"Unknown spread '{spread}': choose 'pooled' or 'class'.")
        self.bandwidth: float | Rule = bandwidth
        self.spread = spread
        self._rows: dict[int, Tensor] = {}
        self._width: dict[int, Tensor] = {}
        self._k = 0

    def fit(self, features: Tensor, label: Tensor) -> Self:
        """Features (n, k), label (n,). Raises UserError for a class of one row with no variance to use."""
        check_features(features, label)
        groups, k = by_class(features, label), features.shape[1]
        spread = with_spread(groups)
        shared = variance(spread, k) if spread and self.spread == "pooled" else None
        width = {}
        for y, x in groups.items():
            if shared is None and len(x) < 2:
                raise UserError(
                    f"Class {y} has 1 feature and no variance to widen it by: use the spread 'pooled', "
                    "and give a class with two features or more."
                )
            sigma = (variance([x], k) if shared is None else shared).sqrt()
            width[y] = (bandwidth_factor(self.bandwidth, len(x), k) * sigma).float()
        self._rows, self._width, self._k = groups, width, k
        return self

    def sample(self, y: int, n: int, seed: int, *, start: int = 0) -> Tensor:
        """Rows start..start + n of class `y`, (n, k). Raises UserError for a class that was not fitted."""
        known_class(y, self._rows)
        x, stop = self._rows[y], start + n
        pick = integers("kernel density, row", seed, y, start, stop, len(x))
        w = normal("kernel density, noise", seed, y, start, stop, self._k)
        return w.mul_(self._width[y]).add_(x[pick])

    def sample_all(self, counts: Tensor, seed: int, *, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """counts[y] rows of every class: features, labels, sorted by class."""
        return sample_classes(self, self._k, counts, seed, start)


class Smote:
    """SMOTE latent sampler: a uniform point between a feature and one of its nearest of the same class.

    x_i + g (x_j - x_i), i uniform over the class, j uniform over the `neighbours` nearest of i, g uniform
    in [0, 1) (Chawla et al. 2002), by imbalanced-learn. A class with fewer others takes all of them; one of
    a single row repeats it.
    """

    def __init__(self, neighbours: int = 5) -> None:
        if neighbours < 1:
            raise UserError(f"SMOTE with {neighbours} neighbours: give at least 1.")
        self.neighbours = neighbours
        self._rows: dict[int, Tensor] = {}
        self._k = 0

    def fit(self, features: Tensor, label: Tensor) -> Self:
        """Features (n, k), label (n,). Raises UserError as `check_features` does."""
        check_features(features, label)
        self._rows, self._k = by_class(features, label), features.shape[1]
        return self

    def sample(self, y: int, n: int, seed: int, *, start: int = 0) -> Tensor:
        """Rows start..start + n of class `y`, (n, k). Raises UserError for a class that was not fitted."""
        known_class(y, self._rows)
        x = self._rows[y]
        m = len(x)
        if m == 1:
            return cut(lambda _: x.expand(CHUNK, -1), start, start + n)
        # imbalanced-learn wants a second class, and draws all rows in one stream, so that a row would
        # depend on how many are asked for: one call per chunk.
        rows, other = torch.cat([x, x[:1]]).numpy(), np.arange(m + 1) == m

        def chunk(j: int) -> Tensor:
            smote = SMOTE(
                sampling_strategy={False: m + CHUNK},
                k_neighbors=min(self.neighbours, m - 1),
                # It takes seeds of 32 bits.
                random_state=stable_seed("latent", "smote", seed, y, j) % 2**32,
            )
            return torch.from_numpy(smote.fit_resample(rows, other)[0][m + 1 :])

        return cut(chunk, start, start + n)

    def sample_all(self, counts: Tensor, seed: int, *, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """counts[y] rows of every class: features, labels, sorted by class."""
        return sample_classes(self, self._k, counts, seed, start)

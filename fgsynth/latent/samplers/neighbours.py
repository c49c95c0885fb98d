"""Latent samplers around single features: kernel density estimation and SMOTE."""

import math
from typing import Literal

import numpy as np
import torch
from imblearn.over_sampling import SMOTE
from torch import Tensor

from fgsynth.latent.covariance import variance, with_spread
from fgsynth.latent.samplers.base import LatentSampler
from fgsynth.latent.samplers.noise import CHUNK, cut, integers, normal
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import stable_seed


class KernelDensity(LatentSampler):
    """Kernel density estimation (smoothed bootstrap): a feature of the class plus Gaussian noise.

    x_j + h sigma * w, j uniform over the class, w standard normal, sigma the standard deviation per dimension
    of the pooled within-class variance. So the covariance is S_y + h^2 diag(sigma^2). A dimension without
    variance stays as it is.

    Parameters
    ----------
    bandwidth : float or "scott"
        h in units of the standard deviation; "scott" is n_y^(-1 / (k + 4)) (Scott 1992). In hundreds of
        dimensions it is close to 1, so that a feature is moved about as far as the class is wide.

    Raises
    ------
    UserError
        For another bandwidth, and by `fit` where no class has two rows.
    """

    def __init__(self, bandwidth: float | Literal["scott"] = "scott") -> None:
        if bandwidth != "scott" and not (isinstance(bandwidth, float | int) and 0 <= bandwidth < math.inf):
            raise UserError(f"Bandwidth '{bandwidth}': choose 'scott' or a number from 0 up.")
        self.bandwidth: float | Literal["scott"] = bandwidth

    def _fit(self, groups: dict[int, Tensor]) -> dict[int, tuple[Tensor, Tensor]]:
        spread = with_spread(groups)
        if not spread:
            raise UserError(
                f"Class {min(groups)} has 1 feature and no variance to widen it by: give a class with two "
                "features or more."
            )
        k = spread[0].shape[1]
        sigma = variance(spread, k).sqrt()
        return {y: (x, (self._factor(len(x), k) * sigma).float()) for y, x in groups.items()}

    def _factor(self, n: int, k: int) -> float:
        return float(n ** (-1 / (k + 4))) if self.bandwidth == "scott" else float(self.bandwidth)

    def _rows(self, y: int, start: int, stop: int, seed: int) -> Tensor:
        x, width = self._classes[y]
        pick = integers("kernel density, row", seed, y, start, stop, len(x))
        w = normal("kernel density, noise", seed, y, start, stop, self._k)
        return w.mul_(width).add_(x[pick])


class Smote(LatentSampler):
    """SMOTE: a uniform point between a feature and one of its nearest neighbours of the same class.

    x_i + g (x_j - x_i), i uniform over the class, j uniform over the nearest neighbours of i, g uniform in
    [0, 1) (Chawla et al. 2002), by imbalanced-learn. A class of a single row repeats it.

    Parameters
    ----------
    neighbours : int
        Of each feature; all others of the class where they are fewer.

    Raises
    ------
    UserError
        For fewer than one neighbour.
    """

    def __init__(self, neighbours: int = 5) -> None:
        if neighbours < 1:
            raise UserError(f"SMOTE with {neighbours} neighbours: give at least 1.")
        self.neighbours = neighbours

    def _fit(self, groups: dict[int, Tensor]) -> dict[int, Tensor]:
        return groups

    def _rows(self, y: int, start: int, stop: int, seed: int) -> Tensor:
        x: Tensor = self._classes[y]
        m = len(x)
        if m == 1:
            return cut(lambda _: x.expand(CHUNK, -1), start, stop)
        # imbalanced-learn wants a second class, and draws all rows in one stream, so that a row would
        # depend on how many are drawn: one call per chunk.
        rows, other = torch.cat([x, x[:1]]).numpy(), np.arange(m + 1) == m

        def chunk(j: int) -> Tensor:
            smote = SMOTE(
                sampling_strategy={False: m + CHUNK},
                k_neighbors=min(self.neighbours, m - 1),
                # It takes seeds of 32 bits.
                random_state=stable_seed("latent", "smote", seed, y, j) % 2**32,
            )
            return torch.from_numpy(smote.fit_resample(rows, other)[0][m + 1 :])

        return cut(chunk, start, stop)

"""Latent samplers around single features: kernel density estimation and SMOTE."""

from numbers import Integral, Real
from typing import Any, ClassVar, Literal

import torch
from sklearn.neighbors import NearestNeighbors
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from fgsynth.latent.checks import ClassError
from fgsynth.latent.covariance import variance, with_spread
from fgsynth.latent.samplers.base import LatentSampler
from fgsynth.latent.samplers.noise import integers, normal, uniform


class KernelDensity(LatentSampler):
    """Kernel density estimation (smoothed bootstrap): a feature of the class plus Gaussian noise.

    x_j + h sigma * w, j uniform over the class, w standard normal, sigma the standard deviation per dimension
    of the pooled within-class variance. So the covariance is S_y + h^2 diag(sigma^2). A dimension without
    variance stays as it is. bandwidth: h; "scott" is n_y^(-1 / (k + 4)) (Scott 1992), in hundreds of
    dimensions close to 1, so that a feature is moved about as far as the class is wide.

    `fit` raises UserError where no class has two rows.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "bandwidth": [StrOptions({"scott"}), Interval(Real, 0, None, closed="left")]
    }

    def __init__(self, bandwidth: float | Literal["scott"] = "scott") -> None:
        self.bandwidth = bandwidth

    def _fit(self, groups: dict[int, Tensor]) -> dict[int, tuple[Tensor, Tensor]]:
        spread = with_spread(groups)
        if not spread:
            raise ClassError(
                min(groups), "Class {} has 1 feature and no variance to widen it by: give a class with two "
                "features or more.",
            )  # fmt: skip
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
    [0, 1) (Chawla et al. 2002). A class of a single row repeats it. neighbours: of each feature, or all
    others of the class where they are fewer.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "neighbours": [Interval(Integral, 1, None, closed="left")]
    }

    def __init__(self, neighbours: int = 5) -> None:
        self.neighbours = neighbours

    def _fit(self, groups: dict[int, Tensor]) -> dict[int, Tensor]:
        self._near: dict[int, Tensor] = {}
        return groups

    def _nearest(self, y: int) -> Tensor:
        """Rows of the nearest neighbours of every row, (n_y, m): found when the class is first drawn."""
        if y not in self._near:
            x: Tensor = self._classes[y]
            m = min(self.neighbours, len(x) - 1)
            found = NearestNeighbors(n_neighbors=m).fit(x.numpy()).kneighbors(return_distance=False)
            self._near[y] = torch.from_numpy(found).long()
        return self._near[y]

    def _rows(self, y: int, start: int, stop: int, seed: int) -> Tensor:
        x: Tensor = self._classes[y]
        if len(x) == 1:
            return x.repeat(stop - start, 1)
        near, here = self._nearest(y), (seed, y, start, stop)
        i = integers("smote, row", *here, len(x))
        j = near[i, integers("smote, neighbour", *here, near.shape[1])]
        return x[i] + uniform("smote, step", *here, 1) * (x[j] - x[i])

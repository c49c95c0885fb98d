"""Minimisation of a probe's objective: SciPy's L-BFGS-B, in coordinates in which features are white."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from fgsynth.latent.probe.discriminant import Statistics, discriminant
from fgsynth.latent.probe.objective import Objective

MEMORY = 20
"""Steps that L-BFGS remembers."""
DAMPING = 1e-3
"""Least variance of an axis of the features, as a share of the mean one."""


@dataclass(frozen=True)
class Coordinates:
    """W = U (V / root) and b = v / root_b - W^T mean: a change of variables, not of the objective.

    At zero logits the curvature of softmax cross entropy is S x (I - 1/c) / c, S the features' covariance
    within classes, U its axes and s the variances along them; root_i = sqrt(s_i / c + 2 weight_decay) makes
    it nearly round. The features count from their mean, b from there.
    mean (k,), axes (k, k), root (k,), root_b scalar.
    """

    mean: Tensor
    axes: Tensor
    root: Tensor
    root_b: float

    @classmethod
    def of(cls, objective: Objective, found: Statistics) -> "Coordinates":
        """The coordinates of an objective; `found` are the statistics of its features."""
        c = len(found.share)
        least = max(DAMPING * float(found.variance.mean()), 1e-30)
        s = found.variance.clamp(min=least) * objective.scale**2
        root = (s / c + 2 * objective.weight_decay).sqrt()
        mean, axes, root = (t.to(objective.features) for t in (found.mean, found.axes, root))
        return cls(mean, axes, root, c**-0.5)

    def pack(self, weight: Tensor, bias: Tensor) -> NDArray[np.float64]:
        """(V, v) of a weight (k, c) and a bias (c,), as one vector."""
        v = self.root[:, None] * (self.axes.T @ weight)
        return self._flat(v, self.root_b * (bias + self.mean @ weight))

    def unpack(self, x: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """The weight and the bias of (V, v)."""
        v = torch.from_numpy(x).to(self.root).view(len(self.root) + 1, -1)
        weight = self.axes @ (v[:-1] / self.root[:, None])
        return weight, v[-1] / self.root_b - self.mean @ weight

    def slope(self, weight: Tensor, bias: Tensor) -> NDArray[np.float64]:
        """The gradient in (V, v) of the gradients in weight and bias (chain rule)."""
        v = self.axes.T @ (weight - self.mean[:, None] * bias) / self.root[:, None]
        return self._flat(v, bias / self.root_b)

    @staticmethod
    def _flat(v: Tensor, v_b: Tensor) -> NDArray[np.float64]:
        return torch.cat([v, v_b[None]]).double().flatten().numpy()


@dataclass(frozen=True)
class Solution:
    """Where the solver stopped: weight, bias, the objective in nats, passes over the features, converged."""

    weight: Tensor
    bias: Tensor
    value: float
    passes: int
    converged: bool


def start_of(objective: Objective, found: Statistics) -> tuple[Tensor, Tensor]:
    """Zero logits, or, as a cosine has no zero, the discriminant: weight (k, c) and bias (c,)."""
    weight, bias = (t.to(objective.features) for t in discriminant(found))
    if objective.head == "linear":
        weight = torch.zeros_like(weight)
    return weight, torch.zeros_like(bias)


def minimise(
    objective: Objective, found: Statistics, start: tuple[Tensor, Tensor], iterations: int, tolerance: float
) -> Solution:
    """L-BFGS (Liu and Nocedal 1989) from start = weight (k, c), bias (c,), at most `iterations`.

    Converged: the largest entry of the gradient, in the coordinates, fell to `tolerance` times that of zero
    logits; or an iteration gained less of the objective than rounding takes.
    """
    space = Coordinates.of(objective, found)

    def function(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, slope, slope_b = objective(*space.unpack(x))
        return value, space.slope(slope, slope_b)

    slope = objective.slope_at_zero(found.means.to(space.root), found.share.to(space.root))
    limit = tolerance * np.abs(space.slope(*slope)).max()
    options = {
        "maxiter": iterations, "maxfun": 20 * iterations, "maxcor": MEMORY, "gtol": limit,
        "ftol": torch.finfo(objective.features.dtype).eps,
    }  # fmt: skip
    end = minimize(function, space.pack(*start), jac=True, method="L-BFGS-B", options=options)
    return Solution(*space.unpack(end.x), float(end.fun), int(end.nfev), end.status == 0)

"""Minimisation of a probe's objective: SciPy's L-BFGS-B, in coordinates in which features are white."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from fgsynth.latent.probe.discriminant import Statistics
from fgsynth.latent.probe.objective import Objective

MEMORY = 20
"""Steps that L-BFGS remembers."""
DAMPING = 1e-3
"""Least variance of an axis of the features, as a share of the mean one."""
REACH = 10.0
"""Nats by which a bias, counted from the mean of the features, may be away from the optimum."""
WINDOW = 10
"""Iterations over which the objective must have stopped falling, where its minimum is not bounded."""


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
        root = (found.variance.clamp(min=least) / c + 2 * objective.weight_decay).sqrt()
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
    """Where the solver stopped: weight, bias, the objective in nats, iterations, whether it converged."""

    weight: Tensor
    bias: Tensor
    value: float
    iterations: int
    converged: bool


@dataclass
class Descent:
    """An objective in the coordinates, and how far above its minimum the last point can be."""

    objective: Objective
    space: Coordinates
    tolerance: float
    value: float = float("inf")
    slope: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    fallen: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW + 1))

    def __call__(self, x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The value and its gradient."""
        value, slope, slope_b = self.objective(*self.space.unpack(x))
        self.value, self.slope = value, self.space.slope(slope, slope_b)
        return self.value, self.slope

    def converged(self) -> bool:
        """Whether at most `tolerance` of the value is left.

        With weight decay by a bound: as F - weight_decay |W|^2 is convex,
        F - min F <= |dF/dW|^2 / (4 weight_decay) + REACH |dF/db|_1. Without, F has no such bound: it fell by
        no more than that over the last WINDOW iterations, or no step made it fall.
        """
        limit = self.tolerance * self.value
        if self.objective.weight_decay:
            slope = self.slope.reshape(len(self.space.root) + 1, -1)
            # Axes are orthonormal, so lengths in W are those along them.
            square = float(np.square(slope[:-1] * self.space.root.double().numpy()[:, None]).sum())
            bias = self.space.root_b * float(np.abs(slope[-1]).sum())
            return square / (4 * self.objective.weight_decay) + REACH * bias <= limit
        return len(self.fallen) > WINDOW and self.fallen[0] - self.value <= limit

    def stop(self, *_: Any) -> None:
        """After an iteration, at the point evaluated last: ends the descent where it converged."""
        self.fallen.append(self.value)
        if self.converged():
            raise StopIteration


def minimise(
    objective: Objective, found: Statistics, start: tuple[Tensor, Tensor], iterations: int, tolerance: float
) -> Solution:
    """L-BFGS (Liu and Nocedal 1989) from start = weight (k, c), bias (c,), at most `iterations`.

    Converged: at most the share `tolerance` of the objective is left, see `Descent.converged`.
    """
    space = Coordinates.of(objective, found)
    descent, x = Descent(objective, space, tolerance), space.pack(*start)
    descent(x)
    if descent.converged():
        return Solution(*start, descent.value, 0, True)
    options = {"maxiter": iterations, "maxfun": 20 * iterations, "maxcor": MEMORY, "gtol": 0, "ftol": 0}
    end = minimize(descent, x, jac=True, method="L-BFGS-B", options=options, callback=descent.stop)
    if end.fun != descent.value:  # the last point tried was given up
        descent(end.x)
    stuck = not objective.weight_decay and end.nit < iterations
    return Solution(*space.unpack(end.x), descent.value, int(end.nit), stuck or descent.converged())

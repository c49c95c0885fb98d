"""L-BFGS in Kronecker-factored coordinates: the same objective, in which it is nearly round."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from fgsynth.latent.probe.discriminant import Statistics, discriminant
from fgsynth.latent.probe.lbfgs import descend
from fgsynth.latent.probe.objective import Objective, columns_of
from fgsynth.latent.probe.products import quick_products
from fgsynth.utils.parallel import SMALL
from fgsynth.utils.seeds import generator

Products = Callable[[], AbstractContextManager[None]]
"""The precision of matrix products, as a context."""
DAMPING, CLASS_DAMPING = 1e-3, 0.1
"""Least curvature of an axis of the features and of the classes, as a share of the mean one. That of classes
changes on the way from the start, and one taken too small sends the first steps far out."""
SOME_ROWS = 8192
"""As many rows tell the start and the curvature there."""
ROUGH = 2e-2
"""Tolerance on some rows, whose optimum is not that of all."""
SHARES = (1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 0)
"""Lengths of the discriminant that are tried as a start."""


def some_rows(objective: Objective) -> Objective:
    """The same objective on SOME_ROWS random rows, always the same; itself if not twice as many."""
    n = len(objective.label)
    if n < 2 * SOME_ROWS:
        return objective
    rows = torch.randperm(n, generator=generator("probe rows"))[:SOME_ROWS]
    return replace(objective, features=objective.features[rows], label=objective.label[rows])


def discriminant_start(objective: Objective, found: Statistics) -> tuple[Tensor, Tensor]:
    """The linear discriminant as a start of softmax regression, shortened to be best on some rows: (W, b).

    The weight decay acts as a ridge: near zero logits, softmax regression is ridge regression, in which each
    of c classes has the curvature 1/c. The discriminant is too long where |W|^2 costs much, or where the
    means of small classes are far apart by chance.
    """
    n_classes = len(found.share)
    weight, offset = discriminant(found, ridge=2 * objective.weight_decay * n_classes)
    level = found.share.clamp(min=1e-12).log() - objective.balanced * objective.prior
    some, identity = some_rows(objective), torch.eye(n_classes, dtype=weight.dtype)
    # As features of their own the discriminant's values are multiplied out once; |share I|^2 = share^2 c.
    values = some.features @ columns_of(weight, objective.head, 1.0)
    decay = objective.weight_decay * float(weight.square().sum()) / n_classes
    line = replace(some, features=values, weight_decay=decay)
    best = min(SHARES, key=lambda share: line(share * identity, share * offset + level)[0])
    return best * weight, best * offset + level


def class_curvature(objective: Objective, weight: Tensor, bias: Tensor) -> Tensor:
    """A = mean of diag(q) - q q^T at (W, b), (c, c): the curvature of softmax cross entropy in its logits."""
    shift = bias + objective.balanced * objective.prior
    columns = columns_of(weight, objective.head, objective.scale)
    q = torch.addmm(shift, some_rows(objective).features, columns).softmax(1)
    return q.mean(0).diag() - q.T @ q / len(q)


def damped(value: Tensor, share: float) -> Tensor:
    """Curvatures, none below `share` times their mean."""
    return value.clamp(min=max(share * float(value.mean()), 1e-30))


@dataclass(frozen=True)
class Coordinates:
    """W = U (V / root) B^T and b = B (v / root_b) - W^T mean: a change of variables, not of the objective.

    At a start the curvature of softmax cross entropy is close to S x A, with S the features' covariance and A
    the classes' `class_curvature` (Kronecker-factored curvature: Martens and Grosse 2015). U, s and B, a are
    their axes and the values along them; root = sqrt(s_i a_j + 2 weight_decay) makes the curvature in
    (V, v) nearly the identity, also of the weight decay. The features count from their mean, b from there.
    mean (k,), axes (k, k), class_axes (c, c), root (k, c), class_root (c,).
    """

    mean: Tensor
    axes: Tensor
    class_axes: Tensor
    root: Tensor
    class_root: Tensor

    @classmethod
    def at(cls, objective: Objective, found: Statistics, weight: Tensor, bias: Tensor) -> "Coordinates":
        """The coordinates at a start, weight (k, c) and bias (c,); `found` are the features' statistics."""
        value, class_axes = torch.linalg.eigh(class_curvature(objective, weight, bias))
        s, a = damped(found.variance, DAMPING) * objective.scale**2, damped(value, CLASS_DAMPING)
        root = (s[:, None] * a + 2 * objective.weight_decay).sqrt()
        return cls(found.mean, found.axes, class_axes, root, a.sqrt())

    def pack(self, weight: Tensor, bias: Tensor) -> Tensor:
        """(V, v) of a weight and a bias, as one vector."""
        v = self.root * (self.axes.T @ weight @ self.class_axes)
        v_b = self.class_root * (self.class_axes.T @ (bias + self.mean @ weight))
        return self._flat(v, v_b)

    def unpack(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The weight and the bias of (V, v)."""
        t = x.to(self.root).view(-1, len(self.class_root))
        weight = self.axes @ (t[:-1] / self.root) @ self.class_axes.T
        return weight, self.class_axes @ (t[-1] / self.class_root) - self.mean @ weight

    def slope(self, weight: Tensor, bias: Tensor) -> Tensor:
        """The gradient in (V, v) of the gradients in weight and bias (chain rule)."""
        v = (self.axes.T @ (weight - self.mean[:, None] * bias) @ self.class_axes) / self.root
        return self._flat(v, (self.class_axes.T @ bias) / self.class_root)

    @staticmethod
    def _flat(v: Tensor, v_b: Tensor) -> Tensor:
        return torch.cat([v.flatten(), v_b]).double()


@dataclass(frozen=True)
class Solution:
    """Where the solver stopped: weight, bias, the objective in nats, passes over its features, converged."""

    weight: Tensor
    bias: Tensor
    value: float
    passes: int
    converged: bool


def centred(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The same linear probe with the classes' mean weight and bias at zero, where |W|^2 is least.

    Softmax does not change by what all classes share, so neither do the steps of a solver.
    """
    return weight - weight.mean(1, keepdim=True), bias - bias.mean()


def minimise(
    objective: Objective, found: Statistics, start: tuple[Tensor, Tensor], iterations: int, tolerance: float
) -> Solution:
    """L-BFGS from start = weight (k, c), bias (c,); large problems by `quick_products` until the last passes.

    Converged: the largest entry of the gradient, in the coordinates at the start, fell to `tolerance` times
    that of zero logits; or an iteration gained less of the objective than rounding takes. Both are seen with
    products in the precision of the features.
    """
    if objective.head == "linear":
        start = centred(*start)
    space = Coordinates.at(objective, found, *start)

    def function(x: Tensor, products: Products = nullcontext) -> tuple[float, Tensor]:
        at = space.unpack(x)
        with products():
            value, slope, slope_b = objective(*at)
        return value, space.slope(slope, slope_b)

    limit = tolerance * float(space.slope(*objective.slope_at_zero(found.means, found.share)).abs().max())
    noise = torch.finfo(objective.features.dtype).eps
    x, rough = space.pack(*start), None
    if objective.features.numel() * len(objective.prior) >= SMALL:
        rough = descend(partial(function, products=quick_products), x, iterations, limit, noise)
        x = rough.x
    end = descend(function, x, iterations, limit, noise, rough)
    return Solution(*space.unpack(end.x), end.value, end.passes, end.converged)


def led_start(objective: Objective, found: Statistics, iterations: int) -> tuple[Tensor, Tensor]:
    """The discriminant's start; where rows are many, led on to the optimum of some of them: weight and bias.

    Most of the way is gone at a part of the cost, and the curvature there is nearly that of the optimum.
    """
    start, some = discriminant_start(objective, found), some_rows(objective)
    if some is objective:
        return start
    end = minimise(some, found, start, iterations, ROUGH)
    return end.weight, end.bias

"""L-BFGS (Liu and Nocedal 1989), with a line search by the weak Wolfe conditions, for round coordinates.

The solvers of SciPy and PyTorch take a first step of length 1 whatever the gradient, and the former spends as
long on its own vectors as a probe's products take; here the first step is the gradient itself.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

MEMORY = 20
"""Steps that are remembered."""
DECREASE, FLATTER = 1e-4, 0.9
"""Wolfe conditions: of what the slope promises, the share gained; of the slope, the share that may stay."""
TRIALS = 20
"""Steps tried along a line at most."""

Function = Callable[[Tensor], tuple[float, Tensor]]
"""The value, nowhere below 0, and the gradient (n,) at a point (n,)."""


@dataclass(frozen=True)
class State:
    """Where L-BFGS stands: x (n,), value, slope (n,), passes (evaluations) and iterations, converged.

    memory: steps and the changes of the gradient along them, the oldest first.
    """

    x: Tensor
    value: float
    slope: Tensor
    passes: int = 1
    iterations: int = 0
    converged: bool = False
    memory: tuple[tuple[Tensor, Tensor], ...] = field(default=(), repr=False)


def descend(
    function: Function, x: Tensor, iterations: int, limit: float, noise: float, earlier: State | None = None
) -> State:
    """L-BFGS from x (n,), at most `iterations` in all.

    noise: the share of the value (or of 1) that rounding moves it by. Converged: the largest entry of the
    gradient is at most `limit`, or an iteration gained no more than `noise`. `earlier`, where a rougher
    version of `function` led to x, lends its memory, and its counts go on. Without a step that gains, it
    starts its memory anew; if that does not help, it stops and has not converged.
    """
    memory = deque(earlier.memory if earlier else (), maxlen=MEMORY)
    passes, done = (earlier.passes, earlier.iterations) if earlier else (0, 0)
    value, slope = function(x)
    passes += 1
    converged = float(slope.abs().max()) <= limit
    while not converged and done < iterations:
        move = quasi_newton(slope, memory).neg_()
        step, after, slope_after, trials = line_search(function, x, value, slope, move, noise)
        passes, done = passes + trials, done + 1
        if not step.any():
            if not memory:
                break
            memory.clear()
            continue
        change = slope_after - slope
        # A curvature that is rounding alone would spoil the memory.
        if float(change @ step) > noise * float(change.norm() * step.norm()):
            memory.append((step, change))
        gain = (value - after) / max(abs(value), abs(after), 1.0)
        x, value, slope = x + step, after, slope_after
        converged = float(slope.abs().max()) <= limit or gain <= noise
    return State(x, value, slope, passes, done, converged, tuple(memory))


def quasi_newton(slope: Tensor, memory: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """H g, (n,), H the inverse curvature that the steps s and changes y of the gradient tell, g the slope.

    The two loops of Nocedal and Wright 2006, algorithm 7.4, from s^T y / y^T y of the last step times I.
    """
    pairs = [(s, y, float(s @ y)) for s, y in memory]
    h, shares = slope.clone(), []
    for s, y, sy in reversed(pairs):
        shares.append(float(s @ h) / sy)
        h.sub_(y, alpha=shares[-1])
    if pairs:
        _, y, sy = pairs[-1]
        h.mul_(sy / float(y @ y))
    for (s, y, sy), share in zip(pairs, reversed(shares), strict=True):
        h.add_(s, alpha=share - float(y @ h) / sy)
    return h


def line_search(
    function: Function, x: Tensor, value: float, slope: Tensor, move: Tensor, noise: float
) -> tuple[Tensor, float, Tensor, int]:
    """A step along `move` (n,) that meets the weak Wolfe conditions, value and slope there, and the trials.

    From the whole move on, or from the farthest place at which a parabola that is nowhere below 0 can be
    lowest: threefold while the slope stays steep; by parabolas and halves once the step is in a bracket.
    The step is 0 for a move that does not go down, and where TRIALS do not do.
    """
    steep = float(slope @ move)
    if not steep < 0:
        return torch.zeros_like(x), value, slope, 0
    low, value_low, slope_low, high = 0.0, value, steep, float("inf")
    t = min(1.0, 2 * value / -steep)
    for trial in range(1, TRIALS + 1):
        step = t * move
        after, slope_after = function(x + step)
        along = float(slope_after @ move)
        # Written so that a value that is not a number is no gain.
        enough = after <= value + DECREASE * t * steep + noise * max(abs(value), 1.0)
        if enough and along >= FLATTER * steep:
            return step, after, slope_after, trial
        share = 0.5
        if enough:
            low, value_low, slope_low = t, after, along
        else:
            high, promise = t, slope_low * (t - low)
            # A parabola by the value and slope at `low` and the value here; 0.1 if that is not a number.
            bend = min(promise - after + value_low, -1e-300)
            share = max(0.1, min(promise / (2 * bend), 0.5))
        t = 3 * t if high == float("inf") else low + share * (high - low)
    return torch.zeros_like(x), value, slope, TRIALS

"""Covariances shrunk by OAS, pooled within classes or in low-rank form."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 8192
"""Rows taken to double precision at once."""


@dataclass(frozen=True)
class Moments:
    """Of n centred rows x (n, k) with S = x^T x / n, in double precision: trace is tr S, square |S|_F^2."""

    n: int
    k: int
    trace: float
    square: float


def oas(m: Moments) -> float:
    """Oracle approximating shrinkage: the weight rho in [0, 1] of (1 - rho) S + rho (tr S / k) I.

    Chen et al. 2010, eq. 23, without its 2/k, as in scikit-learn; 0 in one dimension, where it has no effect.
    """
    if m.k == 1:
        return 0.0
    below = (m.n + 1) * (m.square - m.trace**2 / m.k)
    return 1.0 if below <= 0 else min((m.square + m.trace**2) / below, 1.0)


def scatter(groups: Iterable[Tensor], k: int) -> tuple[Tensor, Moments]:
    """S (k, k), float64, of rows about the mean of their group (n_y, k), over all rows, with its moments."""
    total, n = torch.zeros(k, k, dtype=torch.double), 0
    for x in _centred_blocks(groups):
        total.addmm_(x.T, x)
        n += len(x)
    s = total / n
    return s, Moments(n, k, float(s.trace()), float(s.square().sum()))


def variance(groups: Iterable[Tensor], k: int) -> Tensor:
    """Variance per dimension of rows about the mean of their group (n_y, k), over all rows: (k,), float64."""
    total, n = torch.zeros(k, dtype=torch.double), 0
    for x in _centred_blocks(groups):
        total += x.square().sum(0)
        n += len(x)
    return total / n


def with_spread(groups: dict[int, Tensor]) -> list[Tensor]:
    """Features of the classes with two rows or more, which alone have a variance."""
    return [x for x in groups.values() if len(x) > 1]


def _centred_blocks(groups: Iterable[Tensor]) -> Iterator[Tensor]:
    """Centred rows in double precision, at most two BLOCKs at once: one product for many small groups."""
    held: list[Tensor] = []
    for group in groups:
        mean = group.mean(0, dtype=torch.double)
        for x in group.split(BLOCK):
            held.append(x.double() - mean)
            if sum(map(len, held)) >= BLOCK:
                yield torch.cat(held)
                held = []
    if held:
        yield torch.cat(held)


def gram_moments(x: Tensor) -> Moments:
    """Moments of centred rows (n, k), float64, by x x^T (n, n), for fewer rows than dimensions."""
    n, k = x.shape
    gram = x @ x.T
    # |x^T x|_F = |x x^T|_F, and the traces are equal too.
    return Moments(n, k, float(gram.diagonal().sum()) / n, float(gram.square().sum()) / n**2)


def low_rank(x: Tensor) -> tuple[Tensor, float]:
    """Shrunk covariance of rows (n, k) as F^T F + v I: F (min(n, k), k) float64, v >= 0.

    F is made of the centred rows themselves or, where they are more than the dimensions, of the
    eigenvectors of S, each scaled.
    """
    n, k = x.shape
    if n <= k:
        centred = x.double() - x.mean(0, dtype=torch.double)
        m = gram_moments(centred)
        root = centred / math.sqrt(n)
    else:
        s, m = scatter([x], k)
        variance, axes = torch.linalg.eigh(s)
        root = variance.clamp(min=0).sqrt()[:, None] * axes.T
    rho = oas(m)
    return math.sqrt(1 - rho) * root, rho * m.trace / k


@dataclass(frozen=True)
class Pooled:
    """Within-class covariance turn^T diag(variance) turn: turn (k, k) float32, variance (k,) float64."""

    turn: Tensor
    variance: Tensor


_LAST: dict[bytes, Pooled] = {}
"""The covariance found last, by the digest of its rows: of a fold's rows a sampler, a probe and the next
sampler each need it, and its decomposition in a thousand dimensions takes as long as a probe."""


def pooled(groups: dict[int, Tensor]) -> Pooled | None:
    """Pooled within-class covariance, shrunk, of the classes with two rows or more; None where there is none.

    groups: (n_y, k) by class. The mean over rows, about their class means (maximum likelihood).
    """
    spread = with_spread(groups)
    if not spread:
        return None
    digest = hashlib.blake2b(str([x.shape for x in spread]).encode())
    for x in spread:
        digest.update(x.contiguous().numpy().data)
    if (key := digest.digest()) not in _LAST:
        _LAST.clear()
        _LAST[key] = _decomposed(spread)
    return _LAST[key]


def _decomposed(spread: list[Tensor]) -> Pooled:
    s, m = scatter(spread, spread[0].shape[1])
    rho = oas(m)
    variance, axes = torch.linalg.eigh(s)
    # Rounding leaves eigenvalues of a singular matrix slightly negative.
    return Pooled(axes.T.float().contiguous(), (1 - rho) * variance.clamp(min=0) + rho * m.trace / m.k)

"""The objective of a probe: (balanced) softmax cross entropy of a linear or cosine head, and its gradient."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Head = Literal["linear", "cosine"]
CHUNK = 4096
"""Rows at a time: their logits stay in the processor's cache, and the features are read once."""


def rows_of(features: Tensor, head: Head) -> Tensor:
    """Rows of the head: features as they are, or at unit length for "cosine"."""
    return F.normalize(features) if head == "cosine" else features


def columns_of(weight: Tensor, head: Head, scale: float) -> Tensor:
    """Columns of the head, (k, c): the weight, for "cosine" at length `scale`."""
    return scale * F.normalize(weight, dim=0) if head == "cosine" else weight


def log_prior(counts: Tensor) -> Tensor:
    """Logarithms of the classes' shares, (c,)."""
    return (counts / counts.sum()).log()


def cross_entropy_and_slope(logits: Tensor, label: Tensor) -> tuple[float, Tensor]:
    """Softmax cross entropy summed over the rows, in nats, and its gradient in the logits: q - one hot.

    logits (m, c), label (m,). One exponential per entry: log sum exp z = max z - log max q.
    """
    q = logits.softmax(1)
    log_sum = logits.amax(1) - q.amax(1).log()
    column = label[:, None]
    value = (log_sum - logits.gather(1, column)[:, 0]).sum(dtype=torch.double)
    return float(value), q.scatter_add_(1, column, -torch.ones_like(q[:, :1]))


@dataclass(frozen=True)
class Objective:
    """F(W, b) = mean balanced softmax cross entropy + weight_decay |W|^2 (Ren et al. 2020), in nats.

    features (n, k), by `rows_of`; label (n,); prior (c,): log shares of the classes. As in
    `losses.balanced_softmax`, `balanced` mixes cross entropy on logits + prior (1) and on logits (0).
    The bias is not decayed; the cosine head has none, and nothing depends on b.
    """

    features: Tensor
    label: Tensor
    prior: Tensor
    balanced: float
    weight_decay: float
    head: Head = "linear"
    scale: float = 1.0

    def __call__(self, weight: Tensor, bias: Tensor) -> tuple[float, Tensor, Tensor]:
        """The value, its gradient in weight (k, c) and its gradient in bias (c,)."""
        columns = columns_of(weight, self.head, self.scale)
        if self.head == "cosine":
            value, slope, _ = self._data(columns, torch.zeros_like(bias))
            # Through w / |w|: only what is orthogonal to w is left.
            along = (columns * slope).sum(0) / self.scale**2
            slope = (slope - along * columns) * (self.scale / weight.norm(dim=0).clamp(min=1e-12))
            slope_b = torch.zeros_like(bias)
        else:
            value, slope, slope_b = self._data(columns, bias)
        value += self.weight_decay * float(weight.square().sum(dtype=torch.double))
        return value, slope + 2 * self.weight_decay * weight, slope_b

    def slope_at_zero(self, means: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient at zero logits, from the classes' means (c, k) and shares (c,): (k, c) and (c,)."""
        q = self.balanced * self.prior.softmax(0) + (1 - self.balanced) / len(share)
        slope = torch.outer(share @ means, q) - means.T * share
        return self.scale * slope, q - share

    def _data(self, columns: Tensor, bias: Tensor) -> tuple[float, Tensor, Tensor]:
        """The mean cross entropy and its gradients in columns and bias, summed chunk by chunk."""
        value, slope, slope_b = 0.0, torch.zeros_like(columns), torch.zeros_like(bias)
        parts = [(self.balanced, bias + self.prior), (1 - self.balanced, bias)]
        for rows, label in zip(self.features.split(CHUNK), self.label.split(CHUNK), strict=True):
            for share, shifted in parts:
                if share:
                    loss, q = cross_entropy_and_slope(torch.addmm(shifted, rows, columns), label)
                    value += share * loss
                    slope.addmm_(rows.T, q, alpha=share)
                    slope_b.add_(q.sum(0), alpha=share)
        n = len(self.features)
        return value / n, slope / n, slope_b / n

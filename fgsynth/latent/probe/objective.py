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


def cross_entropy_and_slope(
    logits: Tensor, label: Tensor, share: Tensor | None = None
) -> tuple[float, Tensor]:
    """Softmax cross entropy summed over the rows, in nats, and its gradient in the logits: q - one hot.

    logits (m, c), label (m,); share (m, 1): of each row. One exponential per entry:
    log sum exp z = max z - log max q.
    """
    q = logits.softmax(1)
    log_sum = logits.amax(1) - q.amax(1).log()
    column = label[:, None]
    loss = log_sum - logits.gather(1, column)[:, 0]
    slope = q.scatter_add_(1, column, -torch.ones_like(q[:, :1]))
    if share is None:
        return float(loss.sum(dtype=torch.double)), slope
    return float((loss * share[:, 0]).sum(dtype=torch.double)), slope.mul_(share)


@dataclass(frozen=True)
class Objective:
    """F(W, b) = mean balanced softmax cross entropy + weight_decay |W|^2 (Ren et al. 2020), in nats.

    features (n, k), by `rows_of`; label (n,); prior (c,): log shares of the classes; share (n, 1): weights of
    the rows, of mean 1. As in `losses.balanced_softmax`, `balanced` mixes cross entropy on logits + prior (1)
    and on logits (0). The bias is not decayed; the cosine head has none, and nothing depends on b.
    """

    features: Tensor
    label: Tensor
    prior: Tensor
    balanced: float
    weight_decay: float
    head: Head = "linear"
    scale: float = 1.0
    share: Tensor | None = None

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

    def _data(self, columns: Tensor, bias: Tensor) -> tuple[float, Tensor, Tensor]:
        """The mean cross entropy and its gradients in columns and bias, summed chunk by chunk."""
        value, slope, slope_b = 0.0, torch.zeros_like(columns), torch.zeros_like(bias)
        parts = [(self.balanced, bias + self.prior), (1 - self.balanced, bias)]
        for start in range(0, len(self.features), CHUNK):
            here = slice(start, start + CHUNK)
            rows, label = self.features[here], self.label[here]
            share = None if self.share is None else self.share[here]
            for part, shifted in parts:
                if part:
                    loss, q = cross_entropy_and_slope(torch.addmm(shifted, rows, columns), label, share)
                    value += part * loss
                    slope.addmm_(rows.T, q, alpha=part)
                    slope_b.add_(q.sum(0), alpha=part)
        n = len(self.features)
        return value / n, slope / n, slope_b / n

"""The objective of a probe: softmax cross entropy with weight decay, and its gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 4096
"""Rows at a time: their logits stay in the processor's cache, and the features are read once."""


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
    """F(W, b) = mean softmax cross entropy + weight_decay |W|^2, in nats; the bias is not decayed.

    features (n, k), label (n,); share (n, 1): weights of the rows, of mean 1.
    """

    features: Tensor
    label: Tensor
    weight_decay: float
    share: Tensor | None = None

    def __call__(self, weight: Tensor, bias: Tensor) -> tuple[float, Tensor, Tensor]:
        """The value, its gradient in weight (k, c) and its gradient in bias (c,), summed chunk by chunk."""
        value, slope, slope_b = 0.0, torch.zeros_like(weight), torch.zeros_like(bias)
        for start in range(0, len(self.features), CHUNK):
            here = slice(start, start + CHUNK)
            rows, share = self.features[here], None if self.share is None else self.share[here]
            loss, q = cross_entropy_and_slope(torch.addmm(bias, rows, weight), self.label[here], share)
            value += loss
            slope.addmm_(rows.T, q)
            slope_b.add_(q.sum(0))
        n, decay = len(self.features), self.weight_decay
        value = value / n + decay * float(weight.square().sum(dtype=torch.double))
        return value, slope / n + 2 * decay * weight, slope_b / n

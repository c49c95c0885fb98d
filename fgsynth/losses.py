"""Losses of long-tailed learning."""

from torch import Tensor
from torch.nn import functional as F


def balanced_softmax(logits: Tensor, label: Tensor, counts: Tensor, weight: float = 1.0) -> Tensor:
    """Balanced softmax cross entropy, mean over the batch, in nats (Ren et al. 2020; FG appendix E).

    logits (n, c), label (n,), counts (c,) = n_c of the training set, positive. Cross entropy on
    logits + log n_c. `weight` in [0, 1] mixes it with plain cross entropy: 0 is plain, 1 is balanced.
    """
    balanced = F.cross_entropy(logits + counts.to(logits).log(), label)
    return weight * balanced + (1 - weight) * F.cross_entropy(logits, label)

"""Losses of long-tailed learning."""

from torch import Tensor
from torch.nn import functional as F

from fgsynth.config.schema import Counts
from fgsynth.utils.errors import UserError


def balanced_softmax(
    logits: Tensor, label: Tensor, counts: Tensor, weight: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Balanced softmax cross entropy, mean over the batch, in nats (Ren et al. 2020; FG appendix E).

    logits (n, c), label (n,), counts (c,) = n_c of the training set, positive. Cross entropy on
    logits + log n_c. `weight` in [0, 1] mixes it with plain cross entropy: 0 is plain, 1 is balanced.
    `reduction` "none" gives each sample's loss, (n,).
    """
    balanced = F.cross_entropy(logits + counts.to(logits).log(), label, reduction=reduction)
    return weight * balanced + (1 - weight) * F.cross_entropy(logits, label, reduction=reduction)


def prior_counts(
    kind: Counts, real: Tensor, synthetic: Tensor | None = None, real_share: float = 0.5
) -> Tensor:
    """The n_c of balanced softmax, (c,) float64; only their ratios matter (which ones: *not printed* in FG).

    real, synthetic: images by class, (c,). "real": of the real training set. "real+synthetic": sums.
    "batch": the shares of the classes in a mini-batch with `real_share` of real images, the prior that
    training really has. Without synthetic images all three are the real counts.
    Raises UserError for a class that has none, as log 0 is no prior.
    """
    counts = real.double()
    if synthetic is not None and kind == "real+synthetic":
        counts = counts + synthetic.double()
    if synthetic is not None and kind == "batch":
        counts = real_share * counts / counts.sum() + (1 - real_share) * synthetic / synthetic.sum().double()
    if not (counts > 0).all():
        c = int((counts <= 0).nonzero()[0])
        raise UserError(f"Class {c} has no images by counts '{kind}': add some or leave the class out.")
    return counts

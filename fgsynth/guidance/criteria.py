"""Criteria: `(logits, embedding, label) -> one scalar per sample`, larger = more useful (FG eq. 4 to 8)."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.covariance import OAS, LedoitWolf, empirical_covariance
from torch import Tensor
from torch.nn import functional as F

from fgsynth.config.checked import checked
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator

Criterion = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`criterion(logits (n, c), embedding (n, k), label (n,)) -> (n,)`."""
Shrinkage = Literal["oas", "ledoit_wolf", "none"]


def loss(logits: Tensor, embedding: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy loss of the classifier, C = -log p_f(y|x), in nats (FG eq. 4, 5)."""
    return F.cross_entropy(logits, label, reduction="none")


def entropy(logits: Tensor, embedding: Tensor, label: Tensor) -> Tensor:
    """Entropy of the classifier's prediction, C = -sum_c p_f(c|x) log p_f(c|x), in nats (FG eq. 6)."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


class Hardness:
    """Gaussian hardness: negative log-likelihood of the embedding under its class (FG eq. 7, 8).

    C = 1/2 [ (e-mu_y)^T Sigma_y^-1 (e-mu_y) + ln det Sigma_y + k ln 2 pi ] (Sehwag et al. 2022), with
    mu_y and Sigma_y of all real training samples of the class. A class of few samples has a singular
    covariance, so Sigma_y is shrunk toward a multiple of the identity. The papers print no rule for that:
    OAS is our choice. Of every class: mean, mu (c, k); precision, Sigma^-1 (c, k, k); log_det, ln det Sigma
    (c,).
    """

    def __init__(self, mean: Tensor, precision: Tensor, log_det: Tensor) -> None:
        self.mean, self.precision, self.log_det = mean, precision, log_det

    @classmethod
    @checked
    def fit(
        cls, embedding: Tensor, label: Tensor, n_classes: int, shrinkage: Shrinkage = "oas"
    ) -> "Hardness":
        """Estimate class means and shrunk precisions from real embeddings (n, k) with labels (n,).

        shrinkage: "ledoit_wolf" leaves a class of two singular. Raises UserError for an unknown shrinkage,
        and for a class of fewer than two samples or a singular covariance.
        """
        k = embedding.shape[1]
        means, log_dets = embedding.new_empty(n_classes, k), embedding.new_empty(n_classes)
        # A thousand classes of 2,048 numbers are 17 GB: written in place, never held twice.
        precisions = embedding.new_empty(n_classes, k, k)
        for y in range(n_classes):
            e = embedding[label == y].double()
            if len(e) < 2:
                raise UserError(
                    f"Class {y} has {len(e)} real embeddings: hardness needs at least 2; "
                    "add images or choose another criterion."
                )
            sigma = torch.from_numpy(_covariance(e, shrinkage))
            if torch.linalg.matrix_rank(sigma, hermitian=True) < len(sigma):
                raise UserError(
                    f"The covariance of class {y} ({len(e)} embeddings of {e.shape[1]} dimensions) is "
                    "singular: use shrinkage 'oas'."
                )
            means[y], precisions[y], log_dets[y] = e.mean(0), torch.linalg.inv(sigma), torch.logdet(sigma)
        return cls(means, precisions, log_dets)

    def to(self, device: torch.device) -> "Hardness":
        """Copy to a device."""
        return Hardness(*(part.to(device) for part in (self.mean, self.precision, self.log_det)))

    def __call__(self, logits: Tensor, embedding: Tensor, label: Tensor) -> Tensor:
        """The criterion in nats, (n,)."""
        d = embedding - self.mean[label]
        mahalanobis = torch.einsum("ni,nij,nj->n", d, self.precision[label], d)
        return 0.5 * (mahalanobis + self.log_det[label] + d.shape[1] * math.log(2 * math.pi))


def _covariance(e: Tensor, shrinkage: str) -> NDArray[np.float64]:
    if shrinkage == "none":
        return empirical_covariance(e.numpy())
    return {"oas": OAS, "ledoit_wolf": LedoitWolf}[shrinkage]().fit(e.numpy()).covariance_


def bald(logits: Tensor, embedding: Tensor, label: Tensor) -> Tensor:
    """BALD: mutual information of prediction and weights, H(mean_m p_m) - mean_m H(p_m), in nats.

    Houlsby et al. 2011; for an ensemble Beluch et al. 2018. `beyond.epistemic_heads` has logits and embedding
    in this form: log mean_m p_m over the m members, (n, c), and their logits side by side, (n, m c). Raises
    UserError for the embedding of a single network.
    """
    n, c = logits.shape
    if embedding.shape[1] % c or embedding.shape[1] < 2 * c:
        raise UserError("BALD needs a committee: guide with epistemic_heads.Heads of two heads or more.")
    members = embedding.reshape(n, -1, c).log_softmax(-1)
    each = -(members.exp() * members).sum(-1).mean(-1)
    return entropy(logits, embedding, label) - each


def combined(criteria: Sequence[Criterion], seeds: Sequence[int]) -> Criterion:
    """Combined criterion: each sample draws one of the criteria, uniformly, by its own seed (FG table 6).

    It is not a sum of gradients. `seeds` are the samples' seeds in batch order; the criterion raises
    UserError for a batch of another size.
    """
    draws = [int(torch.randint(len(criteria), (), generator=generator("combined", s))) for s in seeds]
    choice = torch.tensor(draws)

    def criterion(logits: Tensor, embedding: Tensor, label: Tensor) -> Tensor:
        if len(label) != len(choice):
            raise UserError(f"The combined criterion was drawn for {len(choice)} samples, not {len(label)}.")
        values = torch.stack([c(logits, embedding, label) for c in criteria])
        return values.gather(0, choice.to(values.device)[None]).squeeze(0)

    return criterion


CRITERIA: dict[str, Criterion] = {"loss": loss, "entropy": entropy}
"""The paper's criteria that need no fit; `Hardness` is fitted, `combined` is drawn per sample."""
NAMES = (*CRITERIA, "hardness", "bald")

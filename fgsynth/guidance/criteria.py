"""Criteria of usefulness: `(logits, embedding, label) -> one scalar per sample`, larger = more useful."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.covariance import OAS, LedoitWolf, empirical_covariance
from torch import Tensor
from torch.nn import functional as F

from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator

Criterion = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`criterion(logits (n, c), embedding (n, k), label (n,)) -> (n,)`."""

SHRINKAGE = ("oas", "ledoit_wolf", "none")


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
    mu_y and Sigma_y of all real training samples of the class. A class with few samples has a
    singular covariance, so Sigma_y is shrunk toward a multiple of the identity: by OAS (default),
    Ledoit-Wolf (which leaves a class of two singular) or not at all. The papers print no rule:
    this is our choice.
    """

    def __init__(self, mean: Tensor, precision: Tensor, log_det: Tensor) -> None:
        """`mean` (c, k), `precision` = Sigma^-1 (c, k, k), `log_det` = ln det Sigma (c,)."""
        self.mean, self.precision, self.log_det = mean, precision, log_det

    @classmethod
    def fit(cls, embedding: Tensor, label: Tensor, n_classes: int, shrinkage: str = "oas") -> "Hardness":
        """Class means and shrunk precisions from real embeddings (n, k) with labels (n,).

        Raises UserError for an unknown shrinkage, and for a class with fewer than two samples
        or a singular covariance.
        """
        if shrinkage not in SHRINKAGE:
            raise UserError(f"Unknown shrinkage '{shrinkage}': choose one of {', '.join(SHRINKAGE)}.")
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
        """The same on a device."""
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


def combined(criteria: Sequence[Criterion], seeds: Sequence[int]) -> Criterion:
    """Combined criterion: each sample draws one of the criteria, uniformly, by its own seed (FG table 6).

    It is not a sum of gradients. `seeds` are the samples' seeds in batch order.
    Raises UserError when called with a batch of another size.
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
"""Criteria that need nothing but the classifier. `Hardness` is fitted, `combined` is drawn per sample."""

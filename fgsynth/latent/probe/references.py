"""Classifiers without synthetic data: nearest class mean, shrinkage discriminant, nearest neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fgsynth.latent.checks import by_class
from fgsynth.latent.probe.discriminant import check_classes, discriminant, statistics
from fgsynth.latent.probe.linear import Probe, select
from fgsynth.latent.shrinkage import Whitening, shrunk_means
from fgsynth.utils.errors import UserError

TEMPERATURE = 0.07
"""Of the votes of nearest neighbours (Wu et al. 2018; with k = 10 to 200 in Caron et al. 2021, DINO)."""
CHUNK = 4096
"""Query rows at a time."""


def nearest_class_mean(features: Tensor, label: Tensor, n_classes: int) -> Probe:
    """Nearest class mean, by the Euclidean distance: a linear probe, w_y = m_y and b_y = -|m_y|^2 / 2.

    features (n, k), label (n,). Raises UserError for features that `check_features` refuses, or a class
    without any.
    """
    check_classes(features, label, n_classes)
    means = statistics(features, label, n_classes, rows=1).means
    return Probe(means.T.contiguous(), -means.square().sum(1) / 2)


def shrinkage_lda(features: Tensor, label: Tensor, n_classes: int, *, corrected: bool = False) -> Probe:
    """Linear discriminant analysis with a shrunk covariance and equal priors: a probe without training.

    features (n, k), label (n,). The pooled within-class covariance is shrunk by OAS (scikit-learn's
    "auto" is Ledoit-Wolf, class by class). corrected: m_y of n_y rows makes m_y^T S^-1 m_y / 2 too large by
    k / (2 n_y) on average, which the bias gives back; a class of few rows is never predicted otherwise.
    Raises UserError for features that `check_features` refuses, or a class without any.
    """
    check_classes(features, label, n_classes)
    weight, bias = discriminant(statistics(features, label, n_classes))
    return Probe(weight, bias + features.shape[1] / (2 * label.bincount()) if corrected else bias)


def shrunk_lda(features: Tensor, label: Tensor, n_classes: int) -> Probe:
    """Linear discriminant analysis of shrunk class means (`shrinkage.shrunk_means`), equal priors.

    features (n, k), label (n,). A mean that is shrunk as it should be needs no correction. Raises UserError
    for features that `check_features` refuses, for a class without any, and where nothing tells a covariance.
    """
    check_classes(features, label, n_classes)
    groups = by_class(features, label)
    whitening = Whitening.fit(groups)
    means = torch.stack([own.mean for own in shrunk_means(groups, whitening).values()])
    return Probe(whitening.forward @ means.T, -means.square().sum(1) / 2)


@dataclass(frozen=True)
class NearestNeighbours:
    """Nearest neighbours by the cosine, votes weighted exp(cosine / 0.07) (Wu et al. 2018).

    rows (n, k) at unit length, label (n,); k: how many vote.
    """

    rows: Tensor
    label: Tensor
    n_classes: int
    k: int

    def logits(self, features: Tensor) -> Tensor:
        """Logarithms of the votes, (m, n_classes), of features (m, k); a class without votes has -1e4."""
        return torch.cat([self._votes(x) for x in features.split(CHUNK)])

    def predict(self, features: Tensor) -> Tensor:
        """Predicted class, (m,)."""
        return self.logits(features).argmax(1)

    def _votes(self, features: Tensor) -> Tensor:
        near, index = (F.normalize(features) @ self.rows.T).topk(self.k, dim=1)
        # Counted from the nearest, so that its vote is 1 and none overflows.
        vote = ((near - near[:, :1]) / TEMPERATURE).exp()
        votes = torch.zeros(len(features), self.n_classes).scatter_add_(1, self.label[index], vote)
        return votes.log().clamp(min=-1e4)


def nearest_neighbours(
    features: Tensor,
    label: Tensor,
    n_classes: int,
    val_features: Tensor,
    val_label: Tensor,
    ks: Sequence[int],
) -> NearestNeighbours:
    """Nearest neighbours with the k of `ks` that `select` prefers on the validation set.

    features (n, k), label (n,); those of `ks` above n are left out. Raises UserError where none is left, for
    features that `check_features` refuses, or a class without any.
    """
    check_classes(features, label, n_classes)
    rows = F.normalize(features)
    usable = [k for k in ks if 1 <= k <= len(rows)]
    if not usable:
        raise UserError(f"k of {list(ks)} for {len(rows)} features: give one from 1 to {len(rows)}.")
    return select(val_features, val_label, [NearestNeighbours(rows, label, n_classes, k) for k in usable])

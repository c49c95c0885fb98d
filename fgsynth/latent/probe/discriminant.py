"""Linear discriminant analysis: class means and the shrunk pooled within-class covariance."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fgsynth.latent.checks import by_class, check_features
from fgsynth.latent.covariance import Pooled, pooled
from fgsynth.utils.errors import UserError

FLOOR = 1e-6
"""Least variance of an axis, as a share of the mean one: axes along which no feature varies do no harm."""


def check_classes(features: Tensor, label: Tensor, n_classes: int) -> None:
    """Check features as `check_features`, and that two classes or more, 0 to n_classes - 1, all have some.

    Raises UserError.
    """
    check_features(features, label)
    counts = torch.bincount(label, minlength=n_classes)
    if len(counts) > n_classes:
        raise UserError(
            f"Class {len(counts) - 1} among the features: their classes are 0 to {n_classes - 1}."
        )
    if len(counts) < 2:
        raise UserError(f"{len(counts)} class of features: give at least 2, there is nothing to tell apart.")
    if int(counts.min()) == 0:
        raise UserError(f"Class {int(counts.argmin())} has no features: add some or leave the class out.")


@dataclass(frozen=True)
class Statistics:
    """Means (c, k) and shares (c,) of the classes, and their shrunk pooled covariance by its axes.

    axes: (k, k), one in every column; variance: (k,), positive, along them.
    """

    means: Tensor
    share: Tensor
    axes: Tensor
    variance: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean of all features, (k,)."""
        return self.share @ self.means


def statistics(
    features: Tensor, label: Tensor, n_classes: int, rows: int | None = None, real: int | None = None
) -> Statistics:
    """Class statistics of features (n, k); the covariance is shrunk by OAS (Chen et al. 2010).

    rows: take the covariance from about this many evenly spaced rows (None: from all), of the first `real`
    where it is given; means are always of all. A class without rows gets the mean of all. Where no class has
    two rows, all are taken as one class.
    """
    counts = torch.bincount(label, minlength=n_classes)
    sums = torch.zeros(n_classes, features.shape[1]).index_add_(0, label, features)
    means = sums / counts[:, None].clamp(min=1)
    means[counts == 0] = features.mean(0)
    some, their = features[:real], label[:real]
    step = max(1, len(some) // rows) if rows else 1
    some, their = some[::step], their[::step]
    within = pooled(by_class(some, their)) or pooled({0: some})
    if within is None:
        within = Pooled(torch.eye(features.shape[1]), torch.zeros(features.shape[1]))
    variance = within.variance.clamp(min=max(FLOOR * float(within.variance.mean()), 1e-30))
    return Statistics(means, counts / counts.sum(), within.turn.T.contiguous(), variance.float())


def discriminant(found: Statistics) -> tuple[Tensor, Tensor]:
    """Linear discriminant functions log p(e | y) up to a constant in y: weight (k, c) and bias (c,).

    With m_y counted from the mean of all features and S the pooled covariance:
    w_y = S^-1 m_y, b_y = -m_y^T S^-1 m_y / 2 (Fisher 1936; Hastie et al. 2009, eq. 4.10, equal priors).
    """
    mean = found.mean
    centred = (found.means - mean).T
    weight = found.axes @ ((found.axes.T @ centred) / found.variance[:, None])
    return weight, -((centred / 2 + mean[:, None]) * weight).sum(0)

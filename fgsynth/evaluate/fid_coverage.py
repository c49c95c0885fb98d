"""Quality of synthetic sets on features: Frechet distance, density and coverage.

The numbers depend on the extractor of the features, which must be named next to them: ours are a
mini-world network's, on real sets those of the generator's CLIP. Arrays or tensors; the work is done where
`real` is.
"""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fgsynth.utils.errors import UserError

Features = Tensor | NDArray[Any]
"""Features of images: (n, d), any real type."""

ROUNDING = 1e-12  # of a squared distance, relative to the squared norms; doubles are good to 1e-13


@torch.no_grad()
def fid(real: Features, fake: Features) -> float:
    """Frechet inception distance between Gaussians fitted to features (Heusel et al. 2017).

    real (n, d), fake (m, d). |mu_r - mu_f|^2 + tr(S_r) + tr(S_f) - 2 tr((S_r S_f)^(1/2)), with unbiased
    covariances, in double precision; at least 0. Unit: squared features. Biased upwards for few
    images (Chong and Forsyth 2020): compare sets of one size only.
    Raises UserError for fewer than 2 rows, a NaN or infinity, or different d.
    """
    x, y = _checked(real, fake)
    gap = (x.mean(0) - y.mean(0)).square().sum()
    a, b = _root(x), _root(y)
    # With S_r = a'a and S_f = b'b the trace is the sum of the singular values of ab'. Unlike the
    # eigenvalues of S_r S_f it takes no root of a rounded zero, so that n < d is as exact as n > d.
    cross = torch.linalg.svdvals(a @ b.T).sum()
    distance = gap + a.square().sum() + b.square().sum() - 2 * cross
    return max(0.0, float(distance))


@torch.no_grad()
def density_coverage(real: Features, fake: Features, k: int = 5, chunk: int = 1024) -> tuple[float, float]:
    """Density and coverage by balls to the k-th real neighbour (Naeem et al. 2020).

    real (n, d), fake (m, d). Density: the mean number of real balls a fake lies in, over k (about 1,
    can exceed it). Coverage: the share of real balls with a fake in them. Balls are open: a fake as
    far as the k-th neighbour is outside, also when rounding says otherwise. `chunk` real rows
    at a time, so memory grows as chunk * (n + m).
    Raises UserError for k not in 1..n-1, fewer than 2 rows, a NaN or infinity, or different d.
    """
    x, y = _checked(real, fake)
    if not 1 <= k < len(x):
        raise UserError(f"k = {k} nearest neighbours of {len(x)} real rows: choose k from 1 to {len(x) - 1}.")
    inside = covered = 0
    for part in x.split(chunk):
        # Each row is its own nearest, so the k-th neighbour comes at place k + 1.
        radius = _squared_distances(part, x).topk(k + 1, largest=False).values[:, -1:]
        slack = ROUNDING * (_squared_norms(part)[:, None] + _squared_norms(y))
        hit = _squared_distances(part, y) + slack < radius
        inside += int(hit.sum())
        covered += int(hit.any(1).sum())
    return inside / (k * len(y)), covered / len(x)


def _checked(real: Features, fake: Features) -> tuple[Tensor, Tensor]:
    """Both sets in double precision on one device, or a UserError that names the set."""
    x = torch.as_tensor(real).double()
    y = torch.as_tensor(fake).double().to(x.device)
    for name, features in (("real", x), ("fake", y)):
        if features.ndim != 2 or len(features) < 2:
            shape = tuple(features.shape)
            raise UserError(f"The {name} features have shape {shape}: give (n, d) with at least 2 rows.")
        if not torch.isfinite(features).all():
            row = int((~torch.isfinite(features)).any(1).nonzero()[0])
            raise UserError(f"Row {row} of the {name} features has a NaN or infinity: leave the row out.")
    if x.shape[1] != y.shape[1]:
        raise UserError(
            f"{x.shape[1]} real and {y.shape[1]} fake features per row: use one extractor for both sets."
        )
    return x, y


def _root(x: Tensor) -> Tensor:
    """The (min(n, d), d) triangular a with a'a the unbiased covariance of the rows of x (n, d)."""
    return torch.linalg.qr(x - x.mean(0), mode="r").R / (len(x) - 1) ** 0.5


def _squared_norms(x: Tensor) -> Tensor:
    """Squared Euclidean norm per row: (n,)."""
    return x.square().sum(1)


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances of all rows by one matrix product: (n, m), good to `ROUNDING`."""
    return _squared_norms(x)[:, None] + _squared_norms(y) - 2 * x @ y.T

"""The contract of latent samplers, how many features each class lacks, and sampling in blocks."""

from collections.abc import Container, Iterator
from typing import Protocol, Self

import torch
from torch import Tensor

from fgsynth.latent.checks import check_counts
from fgsynth.utils.errors import UserError


class LatentSampler(Protocol):
    """A class-conditional distribution in feature space: fitted on real features, gives synthetic ones.

    Row i of class y depends only on (sampler, seed, y, i): not on `n`, nor on the other classes asked
    for, nor on the block. Fitting again forgets the earlier fit. No method changes a constructor argument.
    """

    def fit(self, features: Tensor, label: Tensor) -> Self:
        """Fit on features (n, k) float32 and label (n,) int64. Raises UserError for what cannot be fitted."""
        ...

    def sample(self, y: int, n: int, seed: int, *, start: int = 0) -> Tensor:
        """Rows start..start + n of class `y`, (n, k). Raises UserError for a class that was not fitted."""
        ...

    def sample_all(self, counts: Tensor, seed: int, *, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """counts[y] rows of every class from row start[y] (None: 0) on: features, labels, sorted by class."""
        ...


def sample_classes(
    sampler: LatentSampler, k: int, counts: Tensor, seed: int, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Every class's rows by the sampler's own `sample`: features (counts.sum(), k), labels, sorted by class.

    counts, start: (c,) int64; start None is 0. Raises UserError as `check_counts` does for either, and for
    as many starts as there are not counts.
    """
    check_counts(counts)
    start = torch.zeros_like(counts) if start is None else start
    check_counts(start)
    if len(start) != len(counts):
        raise UserError(f"{len(start)} starts for {len(counts)} counts: give one of each per class.")
    features = torch.empty(int(counts.sum()), k)
    end = 0
    for y, (n, first) in enumerate(zip(counts.tolist(), start.tolist(), strict=True)):
        if n:
            features[end : end + n] = sampler.sample(y, n, seed, start=first)
            end += n
    return features, torch.arange(len(counts)).repeat_interleave(counts)


def fill_counts(label: Tensor, n_classes: int, to: int | None = None) -> Tensor:
    """How many features each class lacks of `to`: (n_classes,) int64; to None is the largest class.

    A class with more than `to` lacks none; a class without any lacks `to`, which a sampler will refuse.
    Raises UserError for labels that are no class numbers below n_classes, or a negative `to`.
    """
    if label.ndim != 1 or label.dtype != torch.int64 or not ((label >= 0) & (label < n_classes)).all():
        raise UserError(
            f"Labels must be a torch.int64 tensor (n,) of class numbers from 0 to {n_classes - 1}."
        )
    if to is not None and to < 0:
        raise UserError(f"Classes filled to {to}: give a number from 0 up, or None for the largest class.")
    counts = label.bincount(minlength=n_classes)
    return ((int(counts.max()) if to is None else to) - counts).clamp(min=0)


def known_class(y: int, fitted: Container[int]) -> None:
    """Raises UserError unless class `y` is among those fitted."""
    if y not in fitted:
        raise UserError(f"Class {y} was not fitted: it has no real features.")


def blocks(sampler: LatentSampler, counts: Tensor, seed: int, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows of `sample_all`, in order, at most `rows` at once, for sets that memory does not hold.

    Yields features (m, k) and labels (m,), m = rows in every block but the last. The sampler makes whole
    chunks of 128 rows, so small blocks cost more per row.
    Raises UserError for fewer than one row, and as the sampler does.
    """
    if rows < 1:
        raise UserError(f"Blocks of {rows} rows: give at least 1.")
    check_counts(counts)
    ends = counts.cumsum(0)
    begins = ends - counts
    for low in range(0, int(counts.sum()), rows):
        # The part of [low, low + rows) that belongs to each class, counted from the class's first row.
        start = (low - begins).clamp(min=0).minimum(counts)
        stop = (low + rows - begins).clamp(min=0).minimum(counts)
        yield sampler.sample_all(stop - start, seed, start=start)

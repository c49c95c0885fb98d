"""Mini-batches of real and synthetic pictures, from memory or from files, the same for the same seed."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fgsynth.augment import augment, plain
from fgsynth.errors import UserError
from fgsynth.recipe import Recipe
from fgsynth.seeds import generator, stable_seed

T = TypeVar("T")
IN_MEMORY = 4e9
"""Bytes of pictures that a set may take in memory; of a larger one they are read when they are needed."""
Batch = tuple[Tensor, Tensor]
"""Pictures (n, h, w, 3) uint8, labels (n,)."""


class Source(Protocol):
    """Labelled pictures: `Pictures` in memory, or a torch Dataset that opens its files one by one.

    label: (n,), int64, known without opening a file. source[i]: (uint8 (h, w, 3), label); heights and
    widths may differ between pictures where the recipe has a side.
    """

    @property
    def label(self) -> Tensor:
        """Labels, (n,)."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> tuple[Tensor, int]: ...


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures in memory: x uint8 (n, h, w, 3), label (n,). Raises UserError for anything else."""

    x: Tensor
    label: Tensor

    def __post_init__(self) -> None:
        if self.x.dtype != torch.uint8 or self.x.ndim != 4 or self.x.shape[-1] != 3:
            raise UserError(
                f"Pictures are {self.x.dtype} {tuple(self.x.shape)}: uint8 (n, h, w, 3) is needed."
            )
        if self.label.shape != self.x.shape[:1] or self.label.dtype != torch.long:
            raise UserError(
                f"Labels are {self.label.dtype} {tuple(self.label.shape)} for {len(self.x)} pictures: "
                "one int64 label each is needed."
            )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int, /) -> tuple[Tensor, int]:
        return self.x[i], int(self.label[i])


def count(source: Source, n_classes: int, name: str) -> Tensor:
    """Pictures by class, (n_classes,). Raises UserError for no picture or a label outside 0..n_classes-1."""
    if not len(source):
        raise UserError(f"The {name} set has no pictures: leave it out or add some.")
    low, high = int(source.label.min()), int(source.label.max())
    if low < 0 or high >= n_classes:
        raise UserError(
            f"The {name} set has label {low if low < 0 else high}, but labels of {n_classes} classes go "
            f"from 0 to {n_classes - 1}: correct the labels or the number of classes."
        )
    return torch.bincount(source.label, minlength=n_classes)


def fingerprint(source: Source) -> str:
    """BLAKE2b of the labels and, in memory, of the pictures (files are not opened for it)."""
    digest = hashlib.blake2b(source.label.contiguous().numpy().data, digest_size=8)
    if isinstance(source, Pictures):
        digest.update(source.x.contiguous().numpy().data)
    return digest.hexdigest()


Step = tuple[Tensor, Tensor, int]
"""Rows of real pictures, rows of synthetic ones, seed of their augmentation."""


def steps(n_real: int, n_synthetic: int, recipe: Recipe, updates: int, seed: int) -> Iterator[Step]:
    """Which pictures each update sees: exactly round(real_share * batch) real ones (FG step 5).

    Each set is passed through in a new order again and again, without replacement within a pass; a
    batch may hold the end of one pass and the start of the next.
    """
    n = recipe.real_per_batch(n_synthetic > 0)
    real = _passes(n_real, n, generator("batches", seed, "real"))
    synthetic = _passes(n_synthetic, recipe.batch - n, generator("batches", seed, "synthetic"))
    for i in range(updates):
        yield next(real), next(synthetic), stable_seed("augmentation", seed, i)


def _passes(n: int, size: int, draw: torch.Generator) -> Iterator[Tensor]:
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < size:
            left = torch.cat([left, torch.randperm(n, generator=draw)])
        yield left[:size]
        left = left[size:]


@dataclass(frozen=True)
class _Views(Dataset[Batch]):
    """Augmented batches by step: a worker process makes a whole batch, so the seed decides all of it.

    rank, size: of every batch only each size-th picture, from the rank-th on: as many real and synthetic
    ones in each of `size` processes as divide, and together the whole batch whatever their number.
    """

    real: Source
    synthetic: Source | None
    recipe: Recipe
    rank: int = 0
    size: int = 1

    def __getitem__(self, step: Step) -> Batch:
        real, synthetic, seed = step
        mine = slice(self.rank, None, self.size)
        views = [self._views(self.real, real, stable_seed("real", seed), mine)]
        label = [self.real.label[real][mine]]
        if self.synthetic is not None:
            mine = slice((self.rank - len(real)) % self.size, None, self.size)
            views.append(self._views(self.synthetic, synthetic, stable_seed("synthetic", seed), mine))
            label.append(self.synthetic.label[synthetic][mine])
        return torch.cat(views), torch.cat(label)

    def _views(self, source: Source, rows: Tensor, seed: int, mine: slice) -> Tensor:
        names, side = self.recipe.augment, self.recipe.side
        if side is None or isinstance(source, Pictures):
            # Pictures of one size are drawn for together, so all are made for some of them.
            return augment(take(source, rows), names, seed, side)[mine]
        # Files are opened by the process that needs them alone: each has its own seed.
        views = [
            augment([source[int(rows[i])][0]], names, stable_seed(seed, i), side)
            for i in range(len(rows))[mine]
        ]
        return torch.cat(views) if views else torch.empty(0, side, side, 3, dtype=torch.uint8)


@dataclass(frozen=True)
class _Plain(Dataset[Tensor]):
    source: Source
    side: int | None

    def __getitem__(self, rows: Tensor) -> Tensor:
        return plain(take(self.source, rows), self.side)


def take(source: Source, rows: Tensor) -> Tensor | list[Tensor]:
    """Some of the pictures: of one indexing in memory, opened one by one otherwise."""
    return source.x[rows] if isinstance(source, Pictures) else [source[i][0] for i in rows.tolist()]


def training_batches(
    real: Source,
    synthetic: Source | None,
    recipe: Recipe,
    updates: int,
    seed: int,
    workers: int,
    pin: bool,
    *,
    start: int = 0,
    rank: int = 0,
    size: int = 1,
) -> Iterator[Batch]:
    """Augmented mini-batches of `updates` updates; `workers` processes make them ahead, 0 makes them here.

    start: updates to leave out, which were done before. rank, size: this process's share of every batch.
    """
    plan = steps(len(real), len(synthetic) if synthetic is not None else 0, recipe, updates, seed)
    return _load(_Views(real, synthetic, recipe, rank, size), islice(plan, start, None), workers, pin)


def plain_batches(
    source: Source, batch: int, side: int | None, workers: int, rows: Tensor | None = None
) -> Iterator[Tensor]:
    """The pictures in order, or some rows of them, as evaluation sees them, uint8 (n, h, w, 3)."""
    chosen = torch.arange(len(source)) if rows is None else rows
    return _load(_Plain(source, side), iter(chosen.split(batch)), workers, False)


@dataclass(frozen=True)
class _Told(Dataset[T | UserError]):
    """Hands a user's mistakes on as values: a loader would wrap them in the traceback of its worker."""

    dataset: Dataset[T]

    def __getitem__(self, item: object) -> T | UserError:
        try:
            return self.dataset[item]
        except UserError as error:
            return error


def _load(dataset: Dataset[T], plan: Iterator[object], workers: int, pin: bool) -> Iterator[T]:
    loader = DataLoader(
        _Told(dataset),
        sampler=plan,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin,
        # The loader draws a seed for its workers; from its own generator, not from the global one.
        generator=generator("workers"),
    )
    for loaded in loader:
        if isinstance(loaded, UserError):
            raise loaded
        yield loaded

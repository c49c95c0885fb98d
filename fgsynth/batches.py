"""Mini-batches of real and synthetic pictures, from memory or from files, the same for the same seed."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
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
    """Augmented batches by step: a worker process makes a whole batch, so the seed decides all of it."""

    real: Source
    synthetic: Source | None
    recipe: Recipe

    def __getitem__(self, step: Step) -> Batch:
        real, synthetic, seed = step
        views = [self._views(self.real, real, stable_seed("real", seed))]
        label = [self.real.label[real]]
        if self.synthetic is not None:
            views.append(self._views(self.synthetic, synthetic, stable_seed("synthetic", seed)))
            label.append(self.synthetic.label[synthetic])
        return torch.cat(views), torch.cat(label)

    def _views(self, source: Source, rows: Tensor, seed: int) -> Tensor:
        return augment(take(source, rows), self.recipe.augment, seed, self.recipe.side)


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
    real: Source, synthetic: Source | None, recipe: Recipe, updates: int, seed: int, workers: int, pin: bool
) -> Iterator[Batch]:
    """Augmented mini-batches of `updates` updates; `workers` processes make them ahead, 0 makes them here."""
    plan = steps(len(real), len(synthetic) if synthetic is not None else 0, recipe, updates, seed)
    return _load(_Views(real, synthetic, recipe), plan, workers, pin)


def plain_batches(source: Source, batch: int, side: int | None, workers: int) -> Iterator[Tensor]:
    """The pictures in order as evaluation sees them, uint8 (n, h, w, 3)."""
    return _load(_Plain(source, side), iter(torch.arange(len(source)).split(batch)), workers, False)


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

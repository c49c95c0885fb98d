"""Mini-batches of real and synthetic images, from memory or from files, the same for the same seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fgsynth.data.augment import augment, plain
from fgsynth.data.sources import Images, Source, context_of, contexts, take
from fgsynth.train.objective import Batch
from fgsynth.train.recipe import Recipe
from fgsynth.train.sampling import Rows, Step, steps
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator, stable_seed

T = TypeVar("T")


@dataclass(frozen=True)
class _Views(Dataset[Batch]):
    """Augmented batches by step: a worker process makes a whole batch, so the seed decides all of it.

    rank, size: of every batch only each size-th image, from the rank-th on: as many real and synthetic
    ones in each of `size` processes as divide, and together the whole batch whatever their number.
    """

    real: Source
    synthetic: Source | None
    rows: tuple[Rows, Rows | None]
    recipe: Recipe
    rank: int = 0
    size: int = 1

    def __getitem__(self, step: Step) -> Batch:
        batch = self._batch(step)
        return batch._replace(other=self._batch(step.other)) if step.other else batch

    def _batch(self, step: Step) -> Batch:
        mine = slice(self.rank, None, self.size)
        seed = stable_seed("real", step.seed)
        views = [self._views(self.real, step.real, seed, mine)] if len(step.real) else []
        keys = [_of(self.rows[0], step.real[mine])]
        if self.synthetic is not None and self.rows[1] is not None:
            mine = slice((self.rank - len(step.real)) % self.size, None, self.size)
            seed = stable_seed("synthetic", step.seed)
            views.append(self._views(self.synthetic, step.synthetic, seed, mine))
            keys.append(_of(self.rows[1], step.synthetic[mine]))
        groups = [key.group for key in keys if key.group is not None]
        group = torch.cat(groups) if groups else None
        return Batch(torch.cat(views), torch.cat([key.label for key in keys]), group)

    def _views(self, source: Source, rows: Tensor, seed: int, mine: slice) -> Tensor:
        names, side = self.recipe.augment, self.recipe.side
        if side is None or isinstance(source, Images):
            # Images of one size are drawn for together, so all are made for some of them.
            return augment(take(source, rows), names, seed, side)[mine]
        # Files are opened by the process that needs them alone: each has its own seed.
        some = range(len(rows))[mine]
        views = [augment([source[int(rows[i])][0]], names, stable_seed(seed, i), side) for i in some]
        return torch.cat(views) if views else torch.empty(0, side, side, 3, dtype=torch.uint8)


def _of(rows: Rows, some: Tensor) -> Rows:
    return Rows(rows.label[some], None if rows.group is None else rows.group[some])


@dataclass(frozen=True)
class _Plain(Dataset[Tensor]):
    source: Source
    side: int | None

    def __getitem__(self, rows: Tensor) -> Tensor:
        return plain(take(self.source, rows), self.side)


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
    Raises UserError for an objective of groups where images have no contexts.
    """
    rows = keys(real, synthetic, recipe.grouped)
    plan = steps(*rows, recipe, updates, seed, start)
    return _load(_Views(real, synthetic, rows, recipe, rank, size), plan, workers, pin)


def keys(real: Source, synthetic: Source | None, grouped: bool) -> tuple[Rows, Rows | None]:
    """Labels and groups that rows are drawn by; group = label * contexts + context, for a grouped objective.

    Raises UserError for a set without contexts then.
    """
    n = contexts(real, synthetic)

    def rows(source: Source, name: str) -> Rows:
        context = context_of(source)
        if grouped and context is None:
            raise UserError(f"The {name} images have no contexts: this method needs them, choose another.")
        return Rows(source.label, source.label * n + context if grouped and context is not None else None)

    return rows(real, "real"), None if synthetic is None else rows(synthetic, "synthetic")


def plain_batches(
    source: Source, batch: int, side: int | None, workers: int, rows: Tensor | None = None
) -> Iterator[Tensor]:
    """The images in order, or some rows of them, in their plain view, uint8 (n, h, w, 3)."""
    chosen = torch.arange(len(source)) if rows is None else rows
    return _load(_Plain(source, side), iter(chosen.split(batch)), workers, False)


@dataclass(frozen=True)
class _MistakesAsValues(Dataset[T | UserError]):
    """Return a UserError as a value: a loader would wrap it in the traceback of its worker."""

    dataset: Dataset[T]

    def __getitem__(self, item: object) -> T | UserError:
        try:
            return self.dataset[item]
        except UserError as error:
            return error


def _load(dataset: Dataset[T], plan: Iterator[object], workers: int, pin: bool) -> Iterator[T]:
    loader = DataLoader(
        _MistakesAsValues(dataset),
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

"""Which rows mini-batches take: passes over the real and the synthetic set, or draws by class or group."""

from collections.abc import Iterator
from itertools import islice, repeat
from typing import NamedTuple

import torch
from torch import Tensor

from fgsynth.train.objective import PASSES, Drawing
from fgsynth.train.recipe import Recipe
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator, stable_seed


class Rows(NamedTuple):
    """What rows are drawn by: labels (n,), and groups (n,) where there are any."""

    label: Tensor
    group: Tensor | None = None


class Step(NamedTuple):
    """Rows of real images, rows of synthetic ones, the seed of their views; those of a second stream."""

    real: Tensor
    synthetic: Tensor
    seed: int
    other: "Step | None" = None


def steps(
    real: Rows, synthetic: Rows | None, recipe: Recipe, updates: int, seed: int, start: int = 0
) -> Iterator[Step]:
    """Which images each update sees: exactly round(real_share * batch) real ones (FG step 5).

    Without another objective each set is passed through in a new order again and again. start: updates to
    leave out. Raises UserError for an objective that draws groups where there are none.
    """
    method = recipe.objective
    first, second = (method.drawing(), method.second()) if method else (PASSES, None)
    stream = _stream(real, synthetic, recipe, first, updates, seed, "")
    if second is None:
        return islice(stream, start, None)
    others = _stream(real, synthetic, recipe, second, updates, seed, "second ")
    return islice((a._replace(other=b) for a, b in zip(stream, others, strict=True)), start, None)


def _stream(
    real: Rows, synthetic: Rows | None, recipe: Recipe, drawing: Drawing, updates: int, seed: int, which: str
) -> Iterator[Step]:
    n = recipe.real_per_batch(synthetic is not None)
    some = drawn(real, drawing, n, generator(f"{which}batches", seed, "real"))
    made: Iterator[Tensor] = repeat(torch.empty(0, dtype=torch.long))
    if synthetic is not None:
        made = drawn(synthetic, drawing, recipe.batch - n, generator(f"{which}batches", seed, "synthetic"))
    for i in range(updates):
        yield Step(next(some), next(made), stable_seed(f"{which}augmentation", seed, i))


def drawn(rows: Rows, drawing: Drawing, size: int, draw: torch.Generator) -> Iterator[Tensor]:
    """Endless batches of `size` row numbers. Raises UserError for groups of rows that have none."""
    if drawing.kind == "passes":
        return _passes(torch.arange(len(rows.label)), size, draw)
    key = rows.group if drawing.by == "group" else rows.label
    if key is None:
        raise UserError("The images have no contexts, by which groups are drawn: draw by class.")
    if drawing.kind == "subsampled":
        return _passes(subsampled(key, draw), size, draw)
    return _by_key(key, shares(drawing, key.bincount()), size, draw)


def shares(drawing: Drawing, counts: Tensor) -> Tensor:
    """Probability of drawing each class (group) of `counts` images, (c,) float64; they sum to 1."""
    n = counts.double()
    weight = torch.where(n > 0, 1 / n if drawing.kind == "inverse" else torch.ones_like(n), 0)
    return weight / weight.sum()


def subsampled(key: Tensor, draw: torch.Generator) -> Tensor:
    """Draw as many rows of each class (group) as the smallest has, (m,), in order."""
    counts = key.bincount()
    rows, place = mixed_by(key, draw)
    return rows[place < counts[counts > 0].min()].sort().values


def mixed_by(key: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows in a random order within their class (group), (n,), and their places in it, from 0, (n,)."""
    counts = key.bincount()
    mixed = torch.randperm(len(key), generator=draw)
    mixed = mixed[key[mixed].argsort(stable=True)]
    return mixed, torch.arange(len(key)) - (counts.cumsum(0) - counts)[key[mixed]]


def _passes(chosen: Tensor, size: int, draw: torch.Generator) -> Iterator[Tensor]:
    """Every chosen row once per pass; a batch may hold the end of one pass and the start of the next."""
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < size:
            left = torch.cat([left, chosen[torch.randperm(len(chosen), generator=draw)]])
        yield left[:size]
        left = left[size:]


def _by_key(key: Tensor, share: Tensor, size: int, draw: torch.Generator) -> Iterator[Tensor]:
    counts, order = key.bincount(), key.argsort(stable=True)
    start = counts.cumsum(0) - counts
    while True:
        one = torch.multinomial(share, size, replacement=True, generator=draw)
        offset = (torch.rand(size, generator=draw, dtype=torch.float64) * counts[one]).long()
        yield order[start[one] + offset]

"""Noise in fixed chunks: row i of a class is the same however many rows are drawn, and in which block.

Every chunk of 128 rows has its own generator, seeded by (name, seed, class, chunk); a range of rows
is cut out of whole chunks. What is computed from noise by matrix products is computed on whole chunks
too (`cut`), as a product of another height may differ in its last bit.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator

CHUNK = 128
"""Rows in a chunk; another number would give other features."""


def cut(chunk: Callable[[int], Tensor], start: int, stop: int, rows: int = CHUNK) -> Tensor:
    """Rows start..stop of an endless table made in chunks: (stop - start, ...).

    `chunk(j)` gives its rows from rows * j on, (rows, ...). An empty range makes one chunk, to know
    the shape of a row. Raises UserError for a range that is none.
    """
    if not 0 <= start <= stop:
        raise UserError(f"Rows {start} to {stop}: a range starts at 0 or later and does not end before.")
    first, last = start // rows, max(-(-stop // rows), start // rows + 1)
    parts = [chunk(j)[max(start - j * rows, 0) : stop - j * rows] for j in range(first, last)]
    return torch.cat(parts)


def chunk_generator(name: str, seed: int, y: int, j: int) -> torch.Generator:
    """The generator of chunk `j` of class `y`; `name` keeps different uses of one seed apart."""
    return generator("latent", name, seed, y, j)


def normal(name: str, seed: int, y: int, start: int, stop: int, k: int) -> Tensor:
    """Standard normal noise of rows start..stop of class `y`: (stop - start, k), float32."""
    return cut(lambda j: torch.randn(CHUNK, k, generator=chunk_generator(name, seed, y, j)), start, stop)


def uniform(name: str, seed: int, y: int, start: int, stop: int, k: int) -> Tensor:
    """Uniform noise in [0, 1) of rows start..stop of class `y`: (stop - start, k), float32."""
    return cut(lambda j: torch.rand(CHUNK, k, generator=chunk_generator(name, seed, y, j)), start, stop)


def integers(name: str, seed: int, y: int, start: int, stop: int, high: int) -> Tensor:
    """Uniform whole numbers from 0 to high - 1 of rows start..stop of class `y`: (stop - start,), int64."""
    return cut(
        lambda j: torch.randint(high, (CHUNK,), generator=chunk_generator(name, seed, y, j)), start, stop
    )

"""Sources of labelled images: in memory, in files that are opened one by one, or rendered when taken."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fgsynth.data.benchmark import Benchmark
from fgsynth.data.images import as_rgb
from fgsynth.utils.cache import content_digests
from fgsynth.utils.cache import fingerprint as code_fingerprint
from fgsynth.utils.errors import UserError

IN_MEMORY = 4e9
"""Bytes of images that a set may take in memory; of a larger one they are read when they are needed."""


@runtime_checkable
class Source(Protocol):
    """Labelled images, in memory or opened one by one.

    label: (n,), int64, known without opening a file. source[i]: (uint8 (h, w, 3), label); heights and
    widths may differ between images. A source may also have `context`, (n,), int64 from 0, for methods that
    know groups; `take`, which returns many images at once; and `digest`, of all that decides its images.
    """

    @property
    def label(self) -> Tensor:
        """Labels, (n,)."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> tuple[Tensor, int]: ...


@dataclass(frozen=True, eq=False)
class Images:
    """Images in memory: x uint8 (n, h, w, 3), label, context (n,). Raises UserError for anything else."""

    x: Tensor
    label: Tensor
    context: Tensor | None = None

    def __post_init__(self) -> None:
        if self.x.dtype != torch.uint8 or self.x.ndim != 4 or self.x.shape[-1] != 3:
            raise UserError(f"Images are {self.x.dtype} {tuple(self.x.shape)}: uint8 (n, h, w, 3) is needed.")
        if self.label.shape != self.x.shape[:1] or self.label.dtype != torch.long:
            raise UserError(
                f"Labels are {self.label.dtype} {tuple(self.label.shape)} for {len(self.x)} images: "
                "one int64 label each is needed."
            )
        if self.context is not None and self.context.shape != self.label.shape:
            raise UserError(f"{len(self.context)} contexts for {len(self.x)} images: one each is needed.")

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int, /) -> tuple[Tensor, int]:
        return self.x[i], int(self.label[i])

    def take(self, rows: Tensor) -> Tensor:
        """Some of the images, (n, h, w, 3)."""
        return self.x[rows]


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files, opened one by one.

    paths: (n,); label, context: (n,), int64. files[i]: (uint8 (h, w, 3), label), of the file's own size.
    Raises UserError, with the path, for a file that is missing or cannot be read.
    """

    paths: tuple[str, ...]
    label: Tensor
    context: Tensor | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int, /) -> tuple[Tensor, int]:
        return read(self.paths[i]), int(self.label[i])

    @cached_property
    def digest(self) -> str:
        """BLAKE2b of labels and contents, wherever the files are; costs what `content_digests` costs.

        Raises UserError naming a file that is not there.
        """
        digest = hashlib.blake2b(self.label.contiguous().numpy().data, digest_size=16)
        digest.update("\n".join(content_digests([Path(path) for path in self.paths])).encode())
        return digest.hexdigest()


def read(path: str) -> Tensor:
    """An image file as 8-bit RGB, uint8 (h, w, 3). Raises UserError with its path."""
    return torch.from_numpy(np.array(as_rgb(Path(path))))


@dataclass(frozen=True, eq=False)
class Rendered:
    """Rows of a benchmark of the mini world, rendered when they are taken.

    table: with the columns of a manifest; it may hold rows that the benchmark's own manifest has not.
    """

    bench: Benchmark
    table: pd.DataFrame

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, i: int, /) -> tuple[Tensor, int]:
        return self.take(torch.tensor([i]))[0], int(self.label[i])

    @cached_property
    def label(self) -> Tensor:
        """Labels, (n,)."""
        return torch.tensor(self.table["label"].to_numpy(), dtype=torch.long)

    def take(self, rows: Tensor) -> Tensor:
        """Some of the images, (n, h, w, 3)."""
        return self.bench.images(self.table.iloc[rows.numpy()].reset_index(drop=True))

    @cached_property
    def digest(self) -> str:
        """Of the manifest, these rows, and the code that renders."""
        rows = self.table.to_csv(index=False, lineterminator="\n")
        return code_fingerprint(("data", "miniworld", "utils/seeds"), self.bench.manifest.digest, rows)


def take(source: Source, rows: Tensor) -> Tensor | list[Tensor]:
    """Some of the images, uint8: (n, h, w, 3) at once where the source can, else a list of (h, w, 3)."""
    at_once: Callable[[Tensor], Tensor] | None = getattr(source, "take", None)
    return at_once(rows) if at_once else [source[i][0] for i in rows.tolist()]


def digest(source: Source) -> str:
    """Digest of what decides the images and labels of a source: of images in memory, every pixel."""
    return fingerprint(source) if isinstance(source, Images) else str(getattr(source, "digest"))  # noqa: B009


def count(source: Source, n_classes: int, name: str) -> Tensor:
    """Images by class, (n_classes,). Raises UserError for no image or a label outside 0..n_classes-1."""
    if not len(source):
        raise UserError(f"The {name} set has no images: leave it out or add some.")
    low, high = int(source.label.min()), int(source.label.max())
    if low < 0 or high >= n_classes:
        raise UserError(
            f"The {name} set has label {low if low < 0 else high}, but labels of {n_classes} classes go "
            f"from 0 to {n_classes - 1}: correct the labels or the number of classes."
        )
    return torch.bincount(source.label, minlength=n_classes)


def fingerprint(source: Source, grouped: bool = False) -> str:
    """BLAKE2b of labels, images (pixels in memory, else the source's digest) and, if `grouped`, contexts."""
    digest = hashlib.blake2b(source.label.contiguous().numpy().data, digest_size=8)
    if isinstance(source, Images):
        digest.update(source.x.contiguous().numpy().data)
    else:
        digest.update(str(getattr(source, "digest", "")).encode())
    if grouped and (context := context_of(source)) is not None:
        digest.update(context.contiguous().numpy().data)
    return digest.hexdigest()


def context_of(source: Source) -> Tensor | None:
    """The contexts of a source, (n,), if it has any."""
    return getattr(source, "context", None)


def contexts(real: Source, synthetic: Source | None) -> int:
    """Number of contexts: one more than the largest of a training image, as they count from 0."""
    known = [context_of(s) for s in (real, synthetic) if s is not None]
    return max((int(c.max()) + 1 for c in known if c is not None), default=1)

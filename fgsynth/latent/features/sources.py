"""Labelled images that are read when they are needed: files of a list, or a benchmark's rows."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import pandas as pd
import torch
from torch import Tensor

from fgsynth.data.benchmark import Benchmark
from fgsynth.data.disk.image_set import read, safe_path
from fgsynth.train.batches import Images, fingerprint
from fgsynth.utils.cache import fingerprint as code_fingerprint
from fgsynth.utils.errors import UserError

Some = Tensor | list[Tensor]
"""Images uint8: (n, h, w, 3), or a list of (h, w, 3) where sizes differ."""


class Described(Protocol):
    """Labelled images with a digest of what decides them, read many at once."""

    @property
    def label(self) -> Tensor:
        """Labels, (n,) int64, known without opening an image."""

    @property
    def digest(self) -> str:
        """Equal for equal images in equal order only."""

    def take(self, rows: Tensor) -> Some:
        """Some of the images, by row number."""


Source = Images | Described


def digest(source: Source) -> str:
    """Digest of what decides the images and labels of a source: of images in memory, every pixel."""
    return fingerprint(source) if isinstance(source, Images) else source.digest


def take(source: Source, rows: Tensor) -> Some:
    """Some of the images; those in memory by one indexing."""
    return source.x[rows] if isinstance(source, Images) else source.take(rows)


@dataclass(frozen=True, eq=False)
class Files:
    """Image files below a folder, opened one by one when they are taken.

    paths: relative, with forward slashes; label: (n,) int64. Raises UserError for unequal lengths and for a
    path that leaves the folder.
    """

    folder: Path
    paths: tuple[str, ...]
    label: Tensor

    def __post_init__(self) -> None:
        if len(self.paths) != len(self.label):
            raise UserError(f"{len(self.paths)} images and {len(self.label)} labels: give one of each.")
        for path in self.paths:
            safe_path(path, f"The list of images below {self.folder}")

    def take(self, rows: Tensor) -> list[Tensor]:
        """Some of the images. Raises UserError naming a file that cannot be read."""
        return [read(str(self.folder / self.paths[i])) for i in rows.tolist()]

    @cached_property
    def digest(self) -> str:
        """BLAKE2b of paths, sizes in bytes and labels. Raises UserError naming a file that is not there.

        Bytes are not read for it: an image replaced by one of equal size is not noticed.
        """
        digest = hashlib.blake2b(self.label.contiguous().numpy().data, digest_size=16)
        for path in self.paths:
            file = self.folder / path
            if not file.is_file():
                raise UserError(f"There is no image at {file}: complete {self.folder} or correct the list.")
            digest.update(f"{path}\0{file.stat().st_size}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Rendered:
    """Rows of a benchmark of the mini world, rendered when they are taken.

    table: with the columns of a manifest; it may hold rows that the benchmark's own manifest has not.
    """

    bench: Benchmark
    table: pd.DataFrame

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

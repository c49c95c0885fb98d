"""Data sets whose images are files: a table of paths, its manifest, sources that open them one by one."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fgsynth.data.augment import plain
from fgsynth.data.benchmark import COLUMNS, Benchmark, Manifest
from fgsynth.data.sources import ImageFiles, read
from fgsynth.utils.cache import THREADS, content_digests
from fgsynth.utils.errors import UserError, one_line

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A data set on disk, as it is listed; `manifest` checks it.

    table: a manifest's columns and `file`, the path below root; the key is a path that stays the same in
    every published layout. notes: what a user should know; faults: what must be put right; both in sentences.
    """

    name: str
    root: Path
    table: pd.DataFrame
    classes: tuple[str, ...]
    contexts: tuple[str, ...] = ("",)
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest. Raises UserError for faults, and for all that `Manifest` refuses."""
        if self.faults:
            raise UserError(" ".join(self.faults))
        return Manifest(self.name, self.table[COLUMNS], self.classes, self.contexts)

    @cached_property
    def _file(self) -> dict[str, str]:
        return dict(zip(self.table["key"], self.table["file"], strict=True))

    def paths(self, rows: pd.DataFrame) -> list[str]:
        """The files of rows of the manifest."""
        return [str(self.root / self._file[key]) for key in rows["key"]]

    def source(self, split: str) -> ImageFiles:
        """The images of a split in the manifest's order. Raises UserError for a split without any."""
        rows = self.manifest.rows(split)
        label, context = (torch.tensor(rows[key].to_numpy()) for key in ("label", "context"))
        return ImageFiles(tuple(self.paths(rows)), label, context)

    def benchmark(self, side: int) -> Benchmark:
        """The set as a benchmark whose images are the evaluation's views, (n, side, side, 3).

        They are opened at each call, so take few at a time.
        """

        def images(rows: pd.DataFrame) -> torch.Tensor:
            return plain([read(path) for path in self.paths(rows)], side)

        return Benchmark(self.manifest, images, contents=lambda: f"{self.contents()}, {side} pixels")

    def on_files(self, look: int = 256) -> Benchmark:
        """The set as a benchmark whose files are opened one by one, at the moment they are needed.

        look: side of the views that `images` gives, for figures.
        """
        return replace(self.benchmark(look), files=self.paths, contents=self.contents)

    def contents(self) -> str:
        """Digest of the bytes of all files, in the manifest's order; costs what `content_digests` costs."""
        each = content_digests([Path(path) for path in self.paths(self.manifest.table)])
        return hashlib.sha256("\n".join(each).encode()).hexdigest()

    def present(self) -> NDArray[np.bool_]:
        """Which rows' files are there, (n,): every folder is listed once, none of the files is opened."""
        places = [(str(path.parent), path.name) for path in map(PurePosixPath, self.table["file"])]
        folders = sorted({folder for folder, _ in places})
        with ThreadPoolExecutor(THREADS) as pool:
            held = pool.map(lambda folder: _names(self.root / folder), folders)
        inside = dict(zip(folders, held, strict=True))
        return np.array([name in inside[folder] for folder, name in places], dtype=bool)

    def require_files(self) -> None:
        """Raises UserError for faults, and with the number and the first of them, where files are missing."""
        self.manifest  # noqa: B018, raises
        absent = ~self.present()
        if absent.any():
            raise UserError(
                f"{self.name}: {absent.sum():,} of {len(absent):,} images are not below {self.root} "
                f"({self.table['file'][absent].iloc[0]} is the first): complete it, and see "
                "'python -m fgsynth check-data'."
            )


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(entry.name for entry in folder.iterdir())
    except OSError:
        return frozenset()


def safe_path(text: str, where: str) -> str:
    """A path of a list, if it stays below the root. Raises UserError naming `where` it stands otherwise."""
    path = PurePosixPath(text)
    outside = path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:/", text)
    if outside or not path.parts or "\\" in text or "\0" in text:
        raise UserError(
            f"{where} has the path '{text}': give one below the image root and relative to it, with forward "
            "slashes and no '..'."
        )
    return str(path)


def require_folder(root: Path) -> Path:
    """The root. Raises UserError where it is no folder, or its name is not UTF-8."""
    if not root.is_dir():
        raise UserError(f"There is no folder {root}: give the folder that holds the images.")
    if not _is_utf8(root.resolve()):
        raise UserError(f"The name of {root} is not UTF-8: rename the folder.")
    return root


def in_utf8(found: Iterable[Path], root: Path) -> tuple[list[Path], list[str]]:
    """Paths in sorted order, but for those whose names are not UTF-8: a fault, in a sentence."""
    every = sorted(found)
    good, bad = [p for p in every if _is_utf8(p)], [p for p in every if not _is_utf8(p)]
    if not bad:
        return good, []
    first = one_line(str(bad[0].relative_to(root)))
    names = "1 file name is" if len(bad) == 1 else f"{len(bad):,} file names are"
    return good, [f"{root}: {names} not UTF-8 ({first} is the first): rename files or folders."]


def _is_utf8(path: Path) -> bool:
    # Other bytes are surrogates in Python's text.
    return str(path).isascii() or not any("\ud800" <= c <= "\udfff" for c in str(path))


def as_table(rows: Sequence[tuple[str, str, int, int, str]]) -> pd.DataFrame:
    """Rows of (key, split, label, context, file) as a set's table."""
    table = pd.DataFrame(rows, columns=[*COLUMNS, "file"])
    return table.astype({"label": np.int64, "context": np.int64})

"""A resumable store of synthetic images: a plan's rows become WebDataset tars with Parquet indices."""

import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from fgsynth.config.checked import Checked
from fgsynth.config.schema import Count
from fgsynth.data import tars
from fgsynth.data.tars import BLOCK, PLACE
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import atomic

if TYPE_CHECKING:
    from torch import Tensor

PLAN = dict.fromkeys(("key", "prompt", "condition"), "str") | dict.fromkeys(
    ("label", "group", "seed"), "int64"
)
"""Columns that a plan must have; any further ones are carried along."""
NOTES = {"criterion": "str", "before": "float64", "after": "float64", "non_finite": "int64"}
"""Criterion, its values and steps without a finite gradient, per image; "", NaN and 0 without feedback."""
AGAIN = "fill the store again, which makes what is missing."

Piece = tuple[ArrayLike, pd.DataFrame]
"""Images (n, h, w, 3) uint8 on the CPU and, for each, a row with the columns of NOTES."""
Make = Callable[[pd.DataFrame], Piece]
"""`make(rows of the plan) -> one image and note per row`."""


@dataclass(frozen=True, eq=False)
class Store(Checked):
    """A folder of synthetic images by a plan: one row of the plan, one image.

    Shard i is `0000i.tar` (members `<key>.png` in the plan's order, no times or owners, hence the same bytes
    from every run) and `0000i.parquet`, which appears last: a shard is there when its index is.
    plan: the columns of PLAN, then any others. per_shard: images per tar.
    Raises UserError for a plan that lacks a column, names an image twice or cannot be stored.
    """

    folder: Path
    plan: pd.DataFrame
    per_shard: Count = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "plan", _checked_plan(self.plan))

    def parts(self) -> list[range]:
        """The rows of the plan of every shard."""
        n = len(self.plan)
        return [range(start, min(start + self.per_shard, n)) for start in range(0, n, self.per_shard)]

    def rows(self, number: int) -> pd.DataFrame:
        """The plan of one shard, counted from 0."""
        start = number * self.per_shard
        return self.plan.iloc[start : start + self.per_shard].reset_index(drop=True)

    def files(self, number: int) -> tuple[Path, Path]:
        """The tar and the index of a shard."""
        return self.folder / f"{number:05d}.tar", self.folder / f"{number:05d}.parquet"

    def todo(self, numbers: Iterable[int] | None = None) -> list[int]:
        """The shards, of `numbers` or all, that are absent, damaged or of another plan; reads every byte."""
        missing = []
        for number in range(len(self.parts())) if numbers is None else numbers:
            try:
                self.check(number)
            except UserError:
                missing.append(number)
        return missing

    def check(self, number: int) -> None:
        """Compare a shard with its plan, and every byte of its tar with its index.

        Raises UserError naming the shard, and the image, where they differ.
        """
        for _ in self._read(number):
            pass

    def write(self, number: int, pieces: Iterable[Piece]) -> None:
        """Write one shard, piece by piece as they come, in the plan's order; never holds more than a piece.

        The shard appears whole or, if `pieces` raises, not at all. Raises UserError, naming the shard, for
        images or notes that do not fit the plan.
        """
        (tar, index), rows = self.files(number), self.rows(number)
        made: list[pd.DataFrame] = []
        with atomic(tar) as partial:
            with partial.open("wb") as file:
                for images, notes in pieces:
                    array, noted = _checked(tar, images, notes)
                    keys = rows["key"].iloc[sum(map(len, made)) :]
                    place = [tars.append(file, tar, *one) for one in zip(keys, array, strict=False)]
                    made.append(pd.concat([noted, pd.DataFrame(place)], axis=1))
                if (n := sum(map(len, made))) != len(rows):
                    raise UserError(f"Shard {tar} got {n} images for {len(rows)} rows: make one for each.")
                file.write(bytes(tars.length(file.tell()) - file.tell()))
            # An index must never stand beside another tar than its own, not even for a moment.
            index.unlink(missing_ok=True)
        self.write_index(number, pd.concat(made, ignore_index=True))

    def write_index(self, number: int, made: pd.DataFrame) -> None:
        """Write the index of a shard whose tar is there: its plan, and the columns of NOTES and PLACE."""
        _write(self.files(number)[1], _to_parquet(pd.concat([self.rows(number), made], axis=1)))

    def part_index(self, number: int) -> pd.DataFrame:
        """The index of one shard: the columns of the plan, of NOTES and of PLACE.

        Raises UserError, naming the shard, if it is missing or does not fit its plan or (by sizes) its tar.
        """
        tar, index = self.files(number)
        for path in (tar, index):
            if not path.is_file():
                raise UserError(f"{path} is missing: {AGAIN}")
        data, columns, made = io.BytesIO(index.read_bytes()), [*self.plan.columns], NOTES | PLACE
        try:
            frame = pd.read_parquet(data, page_checksum_verification=True)
        except (OSError, ValueError, TypeError, KeyError, NotImplementedError) as error:
            raise UserError(f"{index} is damaged: {AGAIN}") from error
        if [*frame.columns] != [*columns, *made] or not frame[columns].equals(self.rows(number)):
            raise UserError(f"{index} was made by another plan: {AGAIN}")
        if frame[[*made]].dtypes.astype(str).to_dict() != made or not tars.fits(frame, tar):
            raise UserError(f"{index} does not fit its tar: {AGAIN}")
        return frame

    def index(self) -> pd.DataFrame:
        """The indices of all shards, in the plan's order; errors as `part_index`."""
        made = [self.part_index(number)[[*NOTES, *PLACE]] for number in range(len(self.parts()))]
        return pd.concat([self.plan, pd.concat(made, ignore_index=True)], axis=1)

    def images(self) -> "Tensor":
        """All images in the plan's order: (n, h, w, 3) uint8. Raises UserError naming a damaged one."""
        # Here, as importing it takes seconds and nothing else in the store needs it.
        import torch

        result = np.empty((0, 0, 0, 3), np.uint8)
        data = (png for number in range(len(self.parts())) for png in self._read(number))
        for row, png in enumerate(data):
            image = np.asarray(Image.open(io.BytesIO(png)))
            result = result if row else np.empty((len(self.plan), *image.shape), np.uint8)
            result[row] = image
        return torch.from_numpy(result)

    def _read(self, number: int) -> Iterator[bytes]:
        """PNGs of a shard, each compared with its index, as are the header and the padding around it."""
        index, tar = self.part_index(number), self.files(number)[0]
        columns = (index[name] for name in ("key", "offset", "size", "sha256"))
        with tar.open("rb") as file:
            for key, offset, size, sha256 in zip(*columns, strict=True):
                file.seek(offset - BLOCK)
                header, data, padding = file.read(BLOCK), file.read(size), file.read(-size % BLOCK)
                if header != tars.header(key, size) or tars.sha256(data) != sha256 or padding.strip(b"\0"):
                    raise UserError(f"Image {key} of {tar} is damaged: {AGAIN}")
                yield data

    def tidy(self, worker: int = 0, workers: int = 1) -> None:
        """Write `plan.parquet`; remove what earlier plans or killed runs left: surplus shards, partial files.

        Several workers remove shards of their own only, and no partial files, which may be in use.
        """
        plan, path = self.plan.copy(), self.folder / "plan.parquet"
        digest = tars.sha256(plan.to_csv(index=False).encode())
        plan.attrs = {"per_shard": self.per_shard, "sha256 of the CSV": digest}
        if (data := _to_parquet(plan)) != (path.read_bytes() if path.is_file() else b""):
            _write(path, data)
        for shard in self.folder.glob("[0-9]*.*"):
            number = int(shard.stem) if re.fullmatch(r"\d{5,}\.(parquet|tar)", shard.name) else -1
            if number >= len(self.parts()) and number % workers == worker:
                shard.unlink()
        for partial in self.folder.glob(".partial-*") if workers == 1 else ():
            partial.unlink()


def _checked_plan(plan: pd.DataFrame) -> pd.DataFrame:
    """The plan as it is read back from Parquet, so that it can be compared with what was stored."""
    columns = plan.columns.tolist()
    if lacking := [name for name in PLAN if name not in columns]:
        raise UserError(f"The plan lacks the column '{lacking[0]}': give {', '.join(PLAN)}.")
    if taken := [name for name in columns if name in NOTES | PLACE or columns.count(name) > 1]:
        raise UserError(f"The plan's column '{taken[0]}' is one of the index or there twice: rename it.")
    if plan.empty:
        raise UserError("The plan has no rows: give one for every image to make.")
    for name, dtype in PLAN.items():
        kind = pd.api.types.infer_dtype(plan[name], skipna=False)
        if kind != {"str": "string", "int64": "integer"}[dtype]:
            raise UserError(f"The plan's column '{name}' holds {kind}: {dtype} without gaps is needed.")
    if unsafe := [key for key in plan["key"] if not re.fullmatch(r"[A-Za-z0-9_-]{1,96}", key)]:
        raise UserError(f"Key '{unsafe[0]}' of the plan: 1 to 96 of A-Z, a-z, 0-9, _ and - name a file.")
    if (twice := plan["key"].duplicated()).any():
        raise UserError(f"Key '{plan['key'][twice].iloc[0]}' is in the plan twice: make keys unique.")
    if not plan["seed"].between(0, 2**63 - 1).all():
        raise UserError("The plan has a seed below 0 or above 2**63 - 1: take utils.seeds.stable_seed.")
    plain = plan.reset_index(drop=True)
    plain.attrs = {}
    try:
        return pd.read_parquet(io.BytesIO(_to_parquet(plain.astype(PLAN))))
    except (ValueError, TypeError, NotImplementedError, OverflowError) as error:
        raise UserError(f"The plan cannot be stored, {error}: give columns of one plain type.") from error


def _checked(tar: Path, images: ArrayLike, notes: pd.DataFrame) -> tuple[NDArray[np.uint8], pd.DataFrame]:
    array, n = np.asarray(images), len(notes)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or not array.size or len(array) != n:
        got = f"Images for {tar} with {n} notes are {array.dtype} of shape {array.shape}"
        raise UserError(f"{got}: uint8 of shape ({n}, h, w, 3) is needed.")
    try:
        return array, notes[[*NOTES]].fillna({"criterion": ""}).astype(NOTES).reset_index(drop=True)
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"Notes for {tar}, {error}: columns like {NOTES} are needed.") from error


def _to_parquet(frame: pd.DataFrame) -> bytes:
    return frame.to_parquet(index=False, write_page_checksum=True)


def _write(path: Path, data: bytes) -> None:
    with atomic(path) as partial:
        partial.write_bytes(data)

"""A shard, piece by piece: each piece is kept as soon as it is made, so a stop costs a piece and no shard."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from fgsynth.data.tars import BLOCK, PLACE, length
from fgsynth.generate.store import NOTES, Make, Store
from fgsynth.utils.interrupts import patient
from fgsynth.utils.paths import atomic

PIECES = ".pieces"
"""Folder within a store: of every shard in the making a small store, one shard of it a piece."""


Maker = Callable[[], Make]
"""Loads a generator, where and when images are made, and returns what makes them."""


class Step(NamedTuple):
    """How many images of a shard are there, and how many of them were made just now."""

    there: int
    made: int


def landmark(store: Store) -> Path:
    """A file that is there as long as the store's file system is; `Store.tidy` writes it."""
    return store.folder / "plan.parquet"


def missing(store: Store, number: int) -> bool:
    """Whether a shard is absent, damaged or of another plan; reads every byte of it."""
    return bool(patient(partial(store.todo, [number]), store.folder, landmark(store)))


def steps(store: Store, number: int, make: Make, piece: int) -> Iterator[Step]:
    """Make a shard that is missing, `piece` images at a time, from where an earlier run stopped.

    Yields a Step, first of what was found, then after every piece; the shard appears when the
    iterator is exhausted. Its bytes are those of `Store.write`. Raises UserError where `make` gives other
    than one image per row, and for a disk that is full or away.
    """
    here = (store.folder, landmark(store))
    parts = Store(_folder(store, number), store.rows(number), piece)
    todo = patient(parts.todo, *here)
    there = len(parts.plan) - sum(len(parts.rows(k)) for k in todo)
    yield Step(there, 0)
    for k in todo:
        rows = parts.rows(k)
        made = make(rows)
        patient(partial(parts.write, k, [made]), *here)
        there += len(rows)
        yield Step(there, len(rows))
    patient(partial(_join, store, number, parts), *here)
    clear(store, number)


def clear(store: Store, number: int) -> None:
    """Remove the pieces of a shard."""
    shutil.rmtree(_folder(store, number), ignore_errors=True)


def tidy(store: Store, keep: set[int]) -> None:
    """Remove the pieces of all shards but those to `keep`, which are not finished or others' to make."""
    kept = {_folder(store, number) for number in keep}
    for folder in (store.folder / PIECES).glob("*"):
        if folder not in kept:
            shutil.rmtree(folder, ignore_errors=True)
    if not kept:
        with contextlib.suppress(OSError):
            (store.folder / PIECES).rmdir()


def _folder(store: Store, number: int) -> Path:
    return store.folder / PIECES / f"{number:05d}"


def _join(store: Store, number: int, parts: Store) -> None:
    """One tar of the pieces' tars: members as they are, then the end that a tar has."""
    tar, index = store.files(number)
    frames = []
    with atomic(tar) as partial_tar:
        with partial_tar.open("wb") as file:
            for k in range(len(parts.parts())):
                frame, start = parts.part_index(k), file.tell()
                file.write(_members(parts.files(k)[0], frame))
                frames.append(frame.assign(shard=tar.name, offset=frame["offset"] + start))
            file.write(bytes(length(file.tell()) - file.tell()))
        # As in Store.write: an index never stands beside another tar than its own.
        index.unlink(missing_ok=True)
    store.write_index(number, pd.concat(frames, ignore_index=True)[[*NOTES, *PLACE]])


def _members(tar: Path, index: pd.DataFrame) -> bytes:
    """A tar without its end."""
    last = index.iloc[-1]
    end = int(last["offset"]) + int(last["size"])
    with tar.open("rb") as file:
        return file.read(end + -end % BLOCK)

"""Tars of PNGs in the layout of WebDataset: the same bytes from every run, images found by offset."""

import hashlib
import io
import tarfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

PLACE = {"shard": "str", "offset": "int64", "size": "int64", "sha256": "str"}
"""The tar of an image, and the first byte, number of bytes and SHA-256 of its PNG therein."""
BLOCK, RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE


def append(file: BinaryIO, tar: Path, key: str, image: NDArray[np.uint8]) -> dict[str, str | int]:
    """Append one member; returns its row of PLACE."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    data, offset = buffer.getvalue(), file.tell() + BLOCK
    file.write(header(key, len(data)) + data + bytes(-len(data) % BLOCK))
    return dict(zip(PLACE, (tar.name, offset, len(data), sha256(data)), strict=True))


def header(key: str, size: int) -> bytes:
    """A member's header, one block: owner 0, time 0, rw-r--r--."""
    member = tarfile.TarInfo(f"{key}.png")
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.USTAR_FORMAT)


def length(end: int) -> int:
    """The length of a tar whose last member ends there: two empty blocks, then up to a full record."""
    return -(-(end + 2 * BLOCK) // RECORD) * RECORD


def fits(index: pd.DataFrame, tar: Path) -> bool:
    """Whether members of the index's sizes lie at its offsets, and nothing but zeros up to the tar's end."""
    size = index["size"].to_numpy()
    padded = size + -size % BLOCK
    end = np.cumsum(BLOCK + padded)
    right = (size > 0) & (index["offset"] == end - padded) & (index["shard"] == tar.name)
    with tar.open("rb") as file:
        file.seek(last := int(end[-1]) if right.all() else 0)
        return last > 0 and file.read(2 * RECORD) == bytes(length(last) - last)


def sha256(data: bytes) -> str:
    """SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()

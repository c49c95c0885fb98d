"""Synthetic sets, as classifiers are trained on them: in memory if small, else read from their shards."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fgsynth.data.sources import IN_MEMORY, Images, Source
from fgsynth.data.tars import sha256
from fgsynth.generate.plan import share_of
from fgsynth.generate.store import AGAIN, Store
from fgsynth.utils.errors import UserError

BLOCK = 4096
"""Images read together."""


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Images in the shards of a store, each read when it is indexed: a source for training.

    `stored[i]` is (uint8 (h, w, 3), label); it raises UserError, naming the tar, for a damaged image. Of each
    of n images: `shard`, the index of its tar; offset, size and digest of its PNG there; label and, where
    there are contexts, context.
    """

    tars: tuple[Path, ...]
    shard: NDArray[np.int64]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    sha256: NDArray[np.bytes_]
    label: Tensor
    context: Tensor | None = None

    @classmethod
    def of(cls, folder: Path, index: pd.DataFrame) -> "StoredImages":
        """The images of an index of a store."""
        shard, names = pd.factorize(index["shard"])
        # Arrays, not a table of strings: they are shared with the processes that read ahead.
        return cls(
            tuple(folder / name for name in names),
            shard.astype(np.int64),
            index["offset"].to_numpy(np.int64),
            index["size"].to_numpy(np.int64),
            index["sha256"].to_numpy().astype("S64"),
            *_keys(index),
        )

    def __len__(self) -> int:
        return len(self.label)

    @property
    def digest(self) -> str:
        """SHA-256 of labels and of every image's own."""
        return sha256(self.label.numpy().tobytes() + self.sha256.tobytes())

    def __getitem__(self, i: int, /) -> tuple[Tensor, int]:
        tar, offset = self.tars[self.shard[i]], int(self.offset[i])
        try:
            with tar.open("rb") as file:
                file.seek(offset)
                data = file.read(int(self.size[i]))
        except OSError as error:
            raise UserError(f"{tar} cannot be read ({error.strerror}): {AGAIN}") from error
        if sha256(data).encode() != self.sha256[i]:
            raise UserError(f"The image at byte {offset} of {tar} is damaged: {AGAIN}")
        return torch.from_numpy(np.array(Image.open(io.BytesIO(data)))), int(self.label[i])

    def rows(self, mine: NDArray[np.bool_]) -> "StoredImages":
        """Some of the images."""
        names = ("shard", "offset", "size", "sha256")
        chosen = {name: getattr(self, name)[mine] for name in names}
        some = torch.from_numpy(mine)
        context = None if self.context is None else self.context[some]
        return replace(self, **chosen, label=self.label[some], context=context)


def _keys(index: pd.DataFrame) -> tuple[Tensor, Tensor | None]:
    """Labels (n,), and contexts (n,) where the index has them."""
    label = torch.tensor(index["label"].to_numpy(np.int64))
    return label, torch.tensor(index["context"].to_numpy(np.int64)) if "context" in index else None


@dataclass(frozen=True)
class SyntheticSet:
    """Synthetic images in the order of their index, in memory or stored; the digest of what made them."""

    index: pd.DataFrame
    x: Tensor | StoredImages
    digest: str

    @classmethod
    def of(cls, store: Store, digest: str, in_memory: float = IN_MEMORY) -> "SyntheticSet":
        """The images of a full store. in_memory: bytes up to which they are read at once."""
        index = store.index()
        stored = StoredImages.of(store.folder, index)
        small = stored[0][0].numel() * len(stored) <= in_memory
        return cls(index, store.images() if small else stored, digest)

    @property
    def images(self) -> Source:
        """What a classifier is trained on."""
        if isinstance(self.x, StoredImages):
            return self.x
        return Images(self.x, *_keys(self.index))

    def at(self, rows: NDArray[np.int64]) -> Tensor:
        """Images of some rows of the index, (n, h, w, 3) uint8."""
        if isinstance(self.x, StoredImages):
            return torch.stack([self.x[int(i)][0] for i in rows])
        return self.x[torch.tensor(rows)]

    def blocks(self) -> Iterator[Tensor]:
        """All images in order, up to BLOCK at a time."""
        for start in range(0, len(self.index), BLOCK):
            yield self.at(np.arange(start, min(start + BLOCK, len(self.index))))

    def part(self, amount: float, whole: float) -> "SyntheticSet":
        """The first `amount` times the missing images of a set of `whole` times (FG figure 12)."""
        return self.rows(share_of(self.index, amount, whole), f"{self.digest}-{amount}")

    def rows(self, mine: NDArray[np.bool_], digest: str = "") -> "SyntheticSet":
        """Some of the images; a set to train on needs a digest."""
        x = self.x.rows(mine) if isinstance(self.x, StoredImages) else self.x[torch.tensor(mine)]
        return SyntheticSet(self.index[mine].reset_index(drop=True), x, digest)

    @classmethod
    def joined(cls, sets: Sequence["SyntheticSet"]) -> "SyntheticSet":
        """Several sets in memory as one, in their order. Raises UserError for one in files."""
        tensors = [one.x for one in sets if isinstance(one.x, Tensor)]
        if len(tensors) < len(sets):
            raise UserError("A synthetic set is too large to be joined to another in memory: lower fill_to.")
        index = pd.concat([one.index for one in sets], ignore_index=True)
        return cls(index, torch.cat(tensors), "+".join(one.digest for one in sets))

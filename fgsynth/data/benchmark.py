"""Manifests: one table per data set, sorted, with a digest; class and group counts are computed from it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fgsynth.data.images import ImageLike
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import file_name, read_json

COLUMNS = ["key", "split", "label", "context"]
SPLITS = ("train", "val", "test", "final")
"""`val` chooses, `test` is looked at while the work goes on, `final` only for what is reported."""

MANY_ABOVE, FEW_BELOW = 100, 20
"""Training images of a class: more is `many`, fewer is `few` (Liu et al. 2019)."""

DIGESTS = "data/splits/digests.json"
"""Of the manifests at every scale, below the root, as `verify` reads them."""

TITLES = {"imagenet_lt": "ImageNet-LT", "places_lt": "Places-LT", "nicopp": "NICO++"}


@dataclass(frozen=True)
class Manifest:
    """A data set: one row per image, with key, split, label (a class) and context (0 where there is none).

    The key says where the image comes from: a path below the data folder, or a seed of the mini world.
    source: what else decides the images, so that other images have another digest.
    Groups are classes in contexts: group = context + number of contexts * label (SubpopBench).
    Raises UserError, with name and class, for columns, splits, labels or keys that are wrong, and for a class
    that is evaluated but has no training image in any context.
    """

    name: str
    table: pd.DataFrame
    classes: tuple[str, ...]
    contexts: tuple[str, ...] = ("",)
    source: str = ""

    def __post_init__(self) -> None:
        self._check()
        order = self.table["split"].map(SPLITS.index)
        table = self.table.assign(order=order).sort_values(
            ["order", "label", "context", "key"], kind="stable"
        )
        object.__setattr__(self, "table", table[COLUMNS].reset_index(drop=True))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names, source and rows: equal on every machine for the same data set."""
        names = json.dumps([self.name, self.source, self.classes, self.contexts])
        rows = self.table.to_csv(index=False, lineterminator="\n")
        return hashlib.sha256((names + "\n" + rows).encode()).hexdigest()

    @property
    def folder(self) -> str:
        """The name as that of a folder."""
        return file_name(self.name)

    def rows(self, split: str) -> pd.DataFrame:
        """The images of a split, in the manifest's order. Raises UserError where there are none."""
        rows = self.table[self.table["split"] == split].reset_index(drop=True)
        if rows.empty:
            there = self.table["split"].unique()
            raise UserError(f"{self.name} has no split '{split}': choose one of {', '.join(there)}.")
        return rows

    def counts(self, split: str = "train") -> Tensor:
        """Images per class, (c,)."""
        return torch.tensor(self.rows(split)["label"].to_numpy()).bincount(minlength=len(self.classes))

    def group_counts(self, split: str = "train") -> Tensor:
        """Images per group, (c * contexts,)."""
        rows = self.rows(split)
        group = torch.tensor(group_of(rows, self).to_numpy())
        return group.bincount(minlength=len(self.classes) * len(self.contexts))

    def fill_counts(self) -> Tensor:
        """What synthesis fills up: training images per group where there are contexts, else per class."""
        return self.group_counts() if len(self.contexts) > 1 else self.counts()

    def _check(self) -> None:
        table, name = self.table, self.name
        odd = [c for c in COLUMNS if c not in table.columns]
        if odd:
            raise UserError(
                f"The manifest of {name} has no column '{odd[0]}': it needs {', '.join(COLUMNS)}."
            )
        splits = sorted(set(table["split"]) - set(SPLITS))
        if splits:
            raise UserError(f"{name}: unknown split '{splits[0]}'; choose one of {', '.join(SPLITS)}.")
        for column, names in (("label", self.classes), ("context", self.contexts)):
            wrong = table[~table[column].isin(range(len(names)))]
            if len(wrong):
                key, value = wrong.iloc[0][["key", column]]
                raise UserError(
                    f"{name}: image {key} has {column} {value}: give integers from 0 to {len(names) - 1}."
                )
        twice = table["key"][table["key"].duplicated()]
        if len(twice):
            raise UserError(f"{name}: image {twice.iloc[0]} is there twice; splits must not share images.")
        train = set(table["label"][table["split"] == "train"])
        unseen = sorted(set(table["label"]) - train)
        if unseen:
            split = table["split"][table["label"] == unseen[0]].iloc[0]
            raise UserError(
                f"{name}: class '{self.classes[unseen[0]]}' is in {split} but has no training image: "
                "add some or leave the class out."
            )


def strata(train_counts: ArrayLike) -> NDArray[np.str_]:
    """Many (> 100), medium (20..100) and few (< 20) by *training* count (Liu et al. 2019): (c,) names."""
    counts = np.asarray(train_counts)
    return np.where(counts > MANY_ABOVE, "many", np.where(counts < FEW_BELOW, "few", "medium"))


def group_of(rows: pd.DataFrame, manifest: Manifest) -> pd.Series:
    """The group of every row: context + number of contexts * label."""
    return rows["context"] + len(manifest.contexts) * rows["label"]


@dataclass(frozen=True)
class Benchmark:
    """A manifest and how to get at its images.

    images: rows -> uint8 (n, h, w, 3). factors: rows -> hidden factors, where they are known (the mini
    world); for measuring only, no classifier is trained on them. files: rows -> paths, where images are files
    of several sizes that are opened one by one; `images` is for a look at some of them then. contents: digest
    of the images, where the manifest does not decide them.
    """

    manifest: Manifest
    images: Callable[[pd.DataFrame], Tensor]
    factors: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    files: Callable[[pd.DataFrame], list[str]] | None = None
    contents: Callable[[], str] | None = None

    @cached_property
    def digest(self) -> str:
        """Digest of manifest and images: what is computed from the benchmark is kept under it."""
        if self.contents is None:
            return self.manifest.digest
        return hashlib.sha256(f"{self.manifest.digest} {self.contents()}".encode()).hexdigest()

    @property
    def title(self) -> str:
        """The name for captions, with the mini world's draw and the real set told apart."""
        title = TITLES.get(self.manifest.name, self.manifest.name)
        return title if self.factors is None else f"{title} mini"

    def hidden(self, split: str) -> pd.DataFrame:
        """The hidden factors of a split's images, drawn once. Raises UserError where they are not known."""
        if self.factors is None:
            raise UserError(f"The hidden factors of {self.manifest.name} are not known.")
        if split not in self._hidden:
            self._hidden[split] = self.factors(self.manifest.rows(split))
        return self._hidden[split]

    @cached_property
    def _hidden(self) -> dict[str, pd.DataFrame]:
        return {}

    def shown(self, rows: pd.DataFrame) -> Sequence[ImageLike]:
        """The images of rows as a generator is shown them: files, or arrays where there are none."""
        return self.files(rows) if self.files is not None else list(self.images(rows))

    def prompt(self, label: int, context: int) -> str:
        """The papers' prompt: the class's name, on NICO++ "name in context"."""
        named = self.manifest.contexts[context]
        return self.manifest.classes[label] + (f" in {named}" if named else "")


def verify(manifest: Manifest, digests: Path, scale: str) -> None:
    """Compare a manifest with the digest that was written down before the first run.

    digests: a JSON file, benchmark -> scale -> digest. A scale without an entry is not checked. Raises
    UserError where they differ: numbers of another data set must not stand beside the printed ones; and
    where there is no such file.
    """
    known = read_json(digests).get(manifest.name, {}).get(scale)
    if known not in (None, manifest.digest):
        raise UserError(
            f"The manifest of {manifest.name} at scale {scale} has digest {manifest.digest[:12]}, "
            f"{digests} says {known[:12]}: its parameters or the world were changed; restore them, or write "
            "the new digest down with 'python -m fgsynth manifests'."
        )

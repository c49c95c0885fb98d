"""Features of images under a frozen extractor: batched, resumable, kept under what they depend on."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fgsynth.data.augment import augment, check_names
from fgsynth.data.images import as_rgb_all
from fgsynth.latent.features.extractors import Extractor
from fgsynth.latent.features.sources import Source, digest, take
from fgsynth.utils.cache import files_digest, fingerprint
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import atomic, write_text
from fgsynth.utils.progress import progress
from fgsynth.utils.seeds import generator, stable_seed

CODE = ("data", "latent/features", "utils/seeds")
"""The code that features depend on, beside the libraries'."""


@dataclass(frozen=True)
class Views:
    """How often each image is seen: once as it is, then n - 1 times augmented.

    names, side: of fgsynth.data.augment. View v of image i has a seed of its own from (seed, i, v).
    Raises UserError for no view or an unknown augmentation.
    """

    n: int = 1
    names: tuple[str, ...] = ("crop", "flip")
    seed: int = 0
    side: int | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UserError(f"{self.n} views of each image: at least 1 is needed.")
        check_names(self.names)

    def of(self, i: int, image: Tensor) -> list[Tensor]:
        """The views of image i (h, w, 3), each uint8 (height, width, 3)."""
        seeds = [stable_seed("feature view", self.seed, i, v) for v in range(1, self.n)]
        return [image, *(augment([image], self.names, seed, self.side)[0] for seed in seeds)]


ONE = Views()


def extract(
    extractor: Extractor,
    source: Source,
    folder: Path | str,
    *,
    batch: int = 64,
    workers: int = 0,
    views: Views = ONE,
    shard: int = 4096,
) -> tuple[Tensor, Tensor]:
    """Features (n * views, k) float32 and labels of all images, in order, an image's views in a row.

    Kept in the folder as `<fingerprint>.safetensors` ("features", "label") with a JSON beside it, which
    appears last. The fingerprint is of extractor, weights, preprocessing, images and views; batch and
    workers leave at most rounding errors. A killed run goes on after its last whole shard of images.
    Raises UserError for no image, one that cannot be read, a feature that is not finite (naming the
    image), and for a kept file that does not fit what is said beside it.
    """
    n, folder = len(source.label), Path(folder)
    for name, value in {"images": n, "images per batch": batch, "images per shard": shard}.items():
        if value < 1:
            raise UserError(f"Features of {value} {name}: at least 1 is needed.")
    told = _described(extractor, source, views)
    key = fingerprint(CODE, told)
    file, note, parts = (folder / f"{key}{end}" for end in (".safetensors", ".json", ".parts"))
    if not note.is_file():
        ranges = [range(i, min(i + shard, n)) for i in range(0, n, shard)]
        pieces = {parts / f"{rows.start:09d}-{rows.stop:09d}{file.suffix}": rows for rows in ranges}
        _make(extractor, source, views, pieces, batch, workers)
        _join(pieces, source.label.repeat_interleave(views.n), file)
        write_text(note, json.dumps(told | _seen(file), indent=1))
    shutil.rmtree(parts, ignore_errors=True)
    return _kept(file, note)


def _described(extractor: Extractor, source: Source, views: Views) -> dict[str, Any]:
    return {
        "extractor": extractor.name,
        "revision": extractor.revision,
        "weights": extractor.digest,
        "preprocessing": extractor.preprocessing,
        "manifest": digest(source),
        # What is not used must not tell two caches apart.
        "views": asdict(views) if views.n > 1 else {"n": 1},
    }


@dataclass(frozen=True)
class _Pixels(Dataset[Tensor | UserError]):
    """Prepared batches by rows. A worker returns its UserError, as torch would bury it in a traceback."""

    extractor: Extractor
    source: Source
    views: Views

    def __getitem__(self, rows: Tensor) -> Tensor | UserError:
        try:
            return self.extractor.prepare(self._images(rows))
        except UserError as error:
            return error

    def _images(self, rows: Tensor) -> list[Image.Image]:
        images = take(self.source, rows)
        each = [self.views.of(i, one) for i, one in zip(rows.tolist(), images, strict=True)]
        return as_rgb_all([view for some in each for view in some])


def _make(
    extractor: Extractor,
    source: Source,
    views: Views,
    parts: Mapping[Path, range],
    batch: int,
    workers: int,
) -> None:
    """Write the shards that are absent or damaged, one after the other, under one bar."""
    todo = {path: rows for path, rows in parts.items() if not _sound(path, len(rows) * views.n)}
    plan = [rows for part in todo.values() for rows in torch.arange(part.start, part.stop).split(batch)]
    batches = _batches(extractor, _Pixels(extractor, source, views), plan, workers)
    for path, part in todo.items():
        made: list[Tensor] = []
        while sum(map(len, made)) < len(part) * views.n:
            made.append(next(batches))
        with atomic(path) as partial:
            save_file({"features": torch.cat(made)}, partial)


def _batches(extractor: Extractor, pixels: _Pixels, plan: list[Tensor], workers: int) -> Iterator[Tensor]:
    # Its own generator, as the loader would draw the seed of its workers from the global one.
    loader: Any = DataLoader(
        pixels, sampler=plan, batch_size=None, num_workers=workers, generator=generator("workers")
    )
    bar = progress(plan, f"features, {extractor.name}")
    for rows, prepared in zip(bar, loader, strict=True):
        if isinstance(prepared, UserError):
            raise prepared
        features = extractor.embed(prepared)
        finite = torch.isfinite(features).all(1)
        if not finite.all():
            row = int(rows[int(finite.logical_not().nonzero()[0]) // pixels.views.n])
            raise UserError(
                f"'{extractor.name}' gives image {row} a feature that is not finite: leave the image out "
                "or take another extractor."
            )
        yield features


def _sound(path: Path, rows: int) -> bool:
    """Whether a shard is there with all its rows; no byte of its features is read."""
    try:
        with safe_open(path, "pt") as held:
            return held.get_slice("features").get_shape()[0] == rows
    except (OSError, SafetensorError):
        return False


def _join(parts: Mapping[Path, range], label: Tensor, file: Path) -> None:
    """All shards as one file; beside the whole only one shard is in memory."""
    features, at = torch.empty(0), 0
    for path in parts:
        piece = load_file(path)["features"]
        if not at:
            features = torch.empty(len(label), piece.shape[1])
        features[at : at + len(piece)] = piece
        at += len(piece)
    with atomic(file) as partial:
        save_file({"features": features, "label": label}, partial)


def _seen(file: Path) -> dict[str, Any]:
    """What is said of a file of features: rows, k, dtype, and SHA-256 of its bytes."""
    with safe_open(file, "pt") as held:
        part = held.get_slice("features")
        rows, k = part.get_shape()
        dtype = str(part.get_dtype())
    return {"rows": rows, "k": k, "dtype": dtype, "sha256": files_digest([file])}


def _kept(file: Path, note: Path) -> tuple[Tensor, Tensor]:
    """Features and labels as they were kept, compared with what is said beside them."""
    again = f"delete {note.name} to extract the features again."
    try:
        told, seen = json.loads(note.read_text(encoding="utf-8")), _seen(file)
        odd = [key for key in seen if seen[key] != told[key]]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{file} or {note.name} is missing or damaged: {again}") from error
    if odd:
        values = f"{odd[0]} {seen[odd[0]]}, but {note.name} says {told[odd[0]]}"
        raise UserError(f"{file} has {values}: {again}")
    held = load_file(file)
    return held["features"], held["label"]

"""Features of images under a frozen extractor: batched, resumable, stored under a fingerprint."""

import json
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fgsynth.data.images import as_rgb
from fgsynth.data.sources import Source, digest, take
from fgsynth.latent.features.extractors import Extractor
from fgsynth.utils.cache import files_digest, fingerprint
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import atomic, home, write_text
from fgsynth.utils.progress import progress

CODE = ("data", "latent/features", "utils/seeds")
"""The code that features depend on, beside the libraries'."""


def extract(
    extractor: Extractor, source: Source, folder: Path | str, *, batch: int = 32, shard: int = 4096
) -> tuple[Tensor, Tensor]:
    """Compute the features of all images under a frozen extractor, or read those already there.

    Features lie in the folder as `<fingerprint>.safetensors` ("features", "label") with a JSON beside it,
    which appears last. The fingerprint is of extractor, weights, preprocessing and images; batch changes
    rounding errors at most. A killed run goes on after its last whole shard of images. batch, shard: images
    per forward pass, and per file on the way.
    Returns features (n, k) float32 and labels (n,), in the source's order. Raises UserError for no image, one
    that cannot be read, a feature that is not finite (naming the image), and a finished file that does not
    fit its JSON.
    """
    n, folder = len(source.label), home(folder)
    for name, value in {"images": n, "images per batch": batch, "images per shard": shard}.items():
        if value < 1:
            raise UserError(f"Features of {value} {name}: at least 1 is needed.")
    described = _described(extractor, source)
    key = fingerprint(CODE, described)
    file, note, parts = (folder / f"{key}{end}" for end in (".safetensors", ".json", ".parts"))
    if not note.is_file():
        ranges = [range(i, min(i + shard, n)) for i in range(0, n, shard)]
        pieces = {parts / f"{rows.start:09d}-{rows.stop:09d}{file.suffix}": rows for rows in ranges}
        _make(extractor, source, pieces, batch)
        _join(pieces, source.label, file)
        write_text(note, json.dumps(described | _summary(file), indent=1))
    shutil.rmtree(parts, ignore_errors=True)
    return _finished(file, note)


def _described(extractor: Extractor, source: Source) -> dict[str, str]:
    return {
        "extractor": extractor.name,
        "weights": extractor.digest,
        "preprocessing": extractor.preprocessing,
        "manifest": digest(source),
    }


def _make(extractor: Extractor, source: Source, parts: Mapping[Path, range], batch: int) -> None:
    """Write the shards that are absent or damaged, one after the other, under one bar."""
    todo = {path: rows for path, rows in parts.items() if not _sound(path, len(rows))}
    plan = [rows for part in todo.values() for rows in torch.arange(part.start, part.stop).split(batch)]
    batches = _batches(extractor, source, plan)
    for path, part in todo.items():
        made: list[Tensor] = []
        while sum(map(len, made)) < len(part):
            made.append(next(batches))
        with atomic(path) as partial:
            save_file({"features": torch.cat(made)}, partial)


def _batches(extractor: Extractor, source: Source, plan: list[Tensor]) -> Iterator[Tensor]:
    """Features batch by batch; a thread reads the next images while the network is at these."""

    def prepared(rows: Tensor) -> Tensor:
        return extractor.prepare(_upright(source, rows))

    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(prepared, plan[0]) if plan else None
        for i, rows in enumerate(progress(plan, f"features, {extractor.name}")):
            assert ahead is not None
            pixels = ahead.result()
            ahead = reader.submit(prepared, plan[i + 1]) if i + 1 < len(plan) else None
            yield _finite(extractor.embed(pixels), rows, extractor.name)


def _upright(source: Source, rows: Tensor) -> Iterator[Image.Image]:
    """Images one by one, so that of large photographs one at a time is in memory."""
    some = take(source, rows) if hasattr(source, "take") else (source[i][0] for i in rows.tolist())
    return (as_rgb(image, f"Image {i}") for i, image in zip(rows.tolist(), some, strict=True))


def _finite(features: Tensor, rows: Tensor, name: str) -> Tensor:
    """Features (n, k) of some rows. Raises UserError with the first image whose are not finite."""
    finite = torch.isfinite(features).all(1)
    if not finite.all():
        row = int(rows[finite.logical_not()][0])
        raise UserError(
            f"'{name}' gives image {row} a feature that is not finite: leave the image out "
            "or take another extractor."
        )
    return features


def _sound(path: Path, rows: int) -> bool:
    """Whether a shard is there with all its rows, by its header alone."""
    try:
        with safe_open(path, "pt") as held:
            return held.get_slice("features").get_shape()[0] == rows
    except (OSError, SafetensorError):
        return False


def _join(parts: Mapping[Path, range], label: Tensor, file: Path) -> None:
    """Write all shards as one file; beside the whole only one shard is in memory."""
    features, at = torch.empty(0), 0
    for path in parts:
        piece = load_file(path)["features"]
        if not at:
            features = torch.empty(len(label), piece.shape[1])
        features[at : at + len(piece)] = piece
        at += len(piece)
    with atomic(file) as partial:
        save_file({"features": features, "label": label}, partial)


def _summary(file: Path) -> dict[str, Any]:
    """Rows, k and dtype of a file of features, and SHA-256 of its bytes."""
    with safe_open(file, "pt") as held:
        part = held.get_slice("features")
        rows, k = part.get_shape()
        dtype = str(part.get_dtype())
    return {"rows": rows, "k": k, "dtype": dtype, "sha256": files_digest([file])}


def _finished(file: Path, note: Path) -> tuple[Tensor, Tensor]:
    """Features and labels of a finished file, compared with the summary in the JSON beside it."""
    again = f"delete {note.name} to extract the features again."
    try:
        expected, found = json.loads(note.read_text(encoding="utf-8")), _summary(file)
        odd = [key for key in found if found[key] != expected[key]]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(f"{file} or {note.name} is missing or damaged: {again}") from error
    if odd:
        values = f"{odd[0]} {found[odd[0]]}, but {note.name} says {expected[odd[0]]}"
        raise UserError(f"{file} has {values}: {again}")
    held = load_file(file)
    return held["features"], held["label"]

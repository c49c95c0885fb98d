"""The folder of one's own images, or images of the mini world in its place; images written as a folder."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fgsynth.config.schema import LongTail
from fgsynth.data import mini
from fgsynth.data.benchmark import Benchmark
from fgsynth.data.disk import folders
from fgsynth.utils.cache import fingerprint
from fgsynth.utils.paths import atomic, place, root

PLACE = "data/own_images"
"""Where a stage looks for images if it is given no other folder."""


def is_own(images: str) -> bool:
    """Whether a notebook's parameter names images that are there: PLACE may have no train folder."""
    return Path(images) != Path(PLACE) or (place(images) / "train").is_dir()


def place_of(images: str, sample: LongTail, scale: str, work: str) -> Path:
    """The folder or CSV of a notebook's parameter; images of the mini world where PLACE has no train folder.

    These are rendered below `work`, in a folder of their own for every sample and for other code.
    """
    if is_own(images):
        return place(images)
    bench = mini.imagenet_lt(sample)
    name = fingerprint(("data", "miniworld", "utils/seeds"), bench.digest)
    folder = root() / work / "own" / name / f"own-{scale}"
    as_folder(bench, folder)
    return folder


def as_folder(bench: Benchmark, folder: Path, splits: tuple[str, ...] = ("train", "val", "test")) -> None:
    """Write images of a benchmark as an image folder <split>/<class>/<number>.png, to try stages on."""
    for split in splits:
        rows = bench.manifest.rows(split)
        for i, (y, image) in enumerate(zip(rows["label"], bench.images(rows).numpy(), strict=True)):
            name = folders.class_folder(bench.manifest.classes[y])
            keep(folder / split / name / f"{i:05d}.png", image)


def keep(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image that is not there yet."""
    if path.is_file():
        return
    with atomic(path) as partial:
        Image.fromarray(image).save(partial, format="png")

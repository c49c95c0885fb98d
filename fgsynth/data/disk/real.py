"""The real sets as benchmarks: files opened one by one, the official test split as `final`."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fgsynth.config.schema import DrawnSplit, OfficialLists
from fgsynth.data.benchmark import Benchmark
from fgsynth.data.disk import longtail, nicopp
from fgsynth.data.disk.image_set import ImageSet
from fgsynth.data.disk.longtail import Official
from fgsynth.utils import paths

COUNTS = Path("data/splits/train_counts.json")
"""Of the project: training images by label, as the official lists have them."""


def long_tailed(official: Official, settings: OfficialLists) -> Benchmark:
    """ImageNet-LT or Places-LT. Raises UserError as `longtail.load`, and for files that are missing."""
    return as_benchmark(longtail.load(official, paths.place(settings.root), _lists(settings)))


def groups(settings: DrawnSplit) -> Benchmark:
    """NICO++. Raises UserError as `nicopp.load`, and for files that are missing."""
    return as_benchmark(_drawn(settings))


def as_benchmark(found: ImageSet) -> Benchmark:
    """A set with its official test split as `final`, as that is what is reported; there is no other `test`.

    Raises UserError for files that are missing.
    """
    found.require_files()
    splits = found.table["split"].replace("test", "final")
    return replace(found, table=found.table.assign(split=splits)).on_files()


def long_tailed_counts(official: Official, settings: OfficialLists) -> Tensor:
    """Training images by label, (c, 1): by the list where it is there, else as written down.

    Raises UserError for a list that was altered.
    """
    name, sha256 = official.files["train"]
    file = _lists(settings) / name
    if file.is_file():
        names = longtail.class_names(paths.root() / official.classnames)
        label = longtail.read_split(file, sha256)["label"].to_numpy()
        return torch.tensor(label).bincount(minlength=len(names))[:, None]
    return published_counts(paths.root(), official.name)[:, None]


def published_counts(root: Path, benchmark: str) -> Tensor:
    """Training images of every class of ImageNet-LT or Places-LT, (c,), as kept in the project.

    Raises UserError without the file.
    """
    return torch.tensor(paths.read_json(root / COUNTS)[benchmark])


def group_counts(settings: DrawnSplit) -> Tensor:
    """Training images by class and context, (60, 6): by a written split, which is drawn if there is none.

    Raises UserError as `nicopp.load` where there is neither.
    """
    folder = paths.place(settings.splits)
    if nicopp.split_file(folder, settings.seed).is_file():
        counts = nicopp.written_counts(folder, settings.seed)
    else:
        counts = _drawn(settings).manifest.group_counts()
    return counts.reshape(-1, len(nicopp.CONTEXTS))


def _lists(settings: OfficialLists) -> Path:
    return paths.place(settings.lists or settings.root)


def _drawn(settings: DrawnSplit) -> ImageSet:
    return nicopp.load(paths.place(settings.root), paths.place(settings.splits), settings.seed)

"""One's own images: an image folder through all of FG, from checks to an exported synthetic set."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from fgsynth.data.benchmark import Benchmark
from fgsynth.data.disk import folders
from fgsynth.data.sources import IN_MEMORY
from fgsynth.evaluate.metrics import interval, per_class_accuracy
from fgsynth.experiments.build import of_benchmark
from fgsynth.experiments.experiment import Experiment
from fgsynth.experiments.study import Scored
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.train.recipe import Recipe
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import atomic, file_name, home, write_text
from fgsynth.utils.progress import progress


def experiment(
    place: str | Path,
    side: int,
    sampling: Mapping[str, Any],
    training: Mapping[str, Any],
    work: str,
    seed: int = 0,
) -> Experiment:
    """Load the experiment of a folder with train/<class>/, or of a CSV, at `side` x `side` pixels.

    Without val a fifth of every class is held out; without test half of val is it. Training images of more
    than IN_MEMORY bytes are read from their files in every epoch. Raises UserError for wrong settings and
    for images that are missing.
    """
    found = folders.with_test(folders.load(place))
    found.require_files()
    small = float(found.manifest.counts().sum()) * 3 * side**2 <= IN_MEMORY
    bench = found.benchmark(side) if small else found.on_files(side)
    return of_benchmark(bench, sampling, {**training, "side": side}, work, seed)


def per_class(exp: Experiment, scored: Scored, split: str) -> NDArray[np.float64]:
    """Accuracy of every class in percent by seed, (seeds, c); NaN for a class that the split lacks."""
    label = exp.bench.manifest.rows(split)["label"].to_numpy()
    return np.stack([per_class_accuracy(p, label, exp.n_classes) for p in scored.predicted])


def weakest(exp: Experiment, scored: Scored, split: str, n: int) -> list[int]:
    """The n classes of the lowest mean accuracy, of equal ones those of fewer training images.

    split: another one than what is reported later, as the lowest of many are low by chance too.
    """
    mean = np.nan_to_num(per_class(exp, scored, split).mean(0), nan=np.inf)
    counts = exp.bench.manifest.counts().tolist()
    return sorted(range(exp.n_classes), key=lambda y: (mean[y], counts[y]))[:n]


def mixed(exp: Experiment, made: SyntheticSet) -> Recipe:
    """The experiment's recipe with batches mixed as the two sets are large, one image of each at least."""
    n, least = len(exp.real), 1 / exp.recipe.batch
    share = n / (n + len(made.index))
    return replace(exp.recipe, real_share=min(max(share, least), 1 - least))


def changes(exp: Experiment, before: Scored, after: Scored, made: SyntheticSet, split: str) -> pd.DataFrame:
    """Tabulate the change by synthetic images per class: counts, accuracies, gain (points, paired seeds)."""
    first, second = (per_class(exp, scored, split) for scored in (before, after))
    counts = exp.bench.manifest.counts()
    added = made.index["label"].value_counts()
    rows = []
    for y, name in enumerate(exp.bench.manifest.classes):
        if np.isnan(first[:, y]).any():
            continue
        gain = interval(second[:, y] - first[:, y])
        rows.append(
            (name, int(counts[y]), int(added.get(y, 0)), first[:, y].mean(), second[:, y].mean(), str(gain))
        )
    columns = ["class", "real", "synthetic", "before", "after", "gain"]
    return pd.DataFrame(rows, columns=columns)


def export(exp: Experiment, made: SyntheticSet, folder: Path) -> pd.DataFrame:
    """Write a synthetic set as an image folder: train/<class>/<key>.png, and index.csv with what made each.

    The index can be read as a data set again (path, label, split). Images that are there, of the same set,
    are left. Returns the index. Raises UserError for a folder that holds another set.
    """
    classes = [folders.class_folder(name) for name in exp.bench.manifest.classes]
    names = [classes[y] for y in made.index["label"]]
    paths = [f"train/{name}/{file_name(key)}.png" for name, key in zip(names, made.index["key"], strict=True)]
    notes = made.index[["prompt", "condition", "seed", "criterion", "before", "after"]]
    index = pd.concat([pd.DataFrame({"path": paths, "label": names, "split": "train"}), notes], axis=1)
    folder = home(folder)
    text, there = index.to_csv(index=False), folder / "index.csv"
    if there.is_file() and there.read_text(encoding="utf-8") != text:
        raise UserError(f"{folder} holds another synthetic set: give another folder or remove it.")
    write_text(there, text)
    images = made.images
    for i, path in enumerate(progress(paths, "exported")):
        _keep(folder / path, images[i][0].numpy())
    return index


def as_folder(bench: Benchmark, folder: Path, splits: tuple[str, ...] = ("train", "val", "test")) -> None:
    """Write images of a benchmark as an image folder <split>/<class>/<number>.png, to try this on."""
    for split in splits:
        rows = bench.manifest.rows(split)
        for i, (y, image) in enumerate(zip(rows["label"], bench.images(rows).numpy(), strict=True)):
            name = folders.class_folder(bench.manifest.classes[y])
            _keep(folder / split / name / f"{i:05d}.png", image)


def _keep(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image that is not there yet."""
    if path.is_file():
        return
    with atomic(path) as partial:
        Image.fromarray(image).save(partial, format="png")

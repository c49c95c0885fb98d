"""One's own images: an image folder through all of FG, from checks to an exported synthetic set."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from fgsynth.config.names import FG_ENTROPY, REAL_ONLY, UNGUIDED
from fgsynth.data.benchmark import Benchmark
from fgsynth.data.disk import folders
from fgsynth.data.disk.own_folder import keep
from fgsynth.data.sources import IN_MEMORY, Source
from fgsynth.evaluate.metrics import paired_interval, per_class_accuracy
from fgsynth.evaluate.tables import COMPARED
from fgsynth.experiments.experiment import Experiment
from fgsynth.experiments.study import Row, Scored
from fgsynth.generate.generator import Generator
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.pretrain.corpus import web
from fgsynth.pretrain.files import JUDGE
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import file_name, from_root, home, write_text
from fgsynth.utils.progress import progress
from fgsynth.utils.seeds import generator as random

UNKNOWN = 0.17
"""Median distance (`unfamiliarity`) from which a folder is not of the mini world.

Measured: 0.01 on held-out scenes of it, 0.08 on its objects, 0.13 with all appearances equally frequent; 0.23
and 0.25 on two sets of photographs, 0.21 on noise.
"""
LOOKED_AT = 192
"""Images of a folder that are compared with the mini world's."""
SHOWN = 1500
"""Images of the mini world that they are compared with, which takes two seconds."""
COARSE = 5
"""Held-out images of a class below which its accuracy says little."""


def benchmark(place: str | Path, side: int) -> Benchmark:
    """Load a folder with train/<class>/, or a CSV, as a benchmark of images of `side` x `side` pixels.

    Without val a fifth of every class is held out; without test half of val is it (`folders.with_test`).
    Training images of more than IN_MEMORY bytes are read from their files in every epoch. Raises UserError
    for images that are missing, and for a class alone.
    """
    found = folders.with_test(folders.load(place))
    found.require_files()
    if len(found.classes) == 1:
        raise UserError(f"{place} has the one class '{found.classes[0]}': add another to tell it from.")
    small = float(found.manifest.counts().sum()) * 3 * side**2 <= IN_MEMORY
    return found.benchmark(side) if small else found.on_files(side)


def unfamiliarity(generator: Generator, images: Source) -> float:
    """Median cosine distance of images to the nearest image of the mini world, by the generator's CLIP."""
    rows = torch.randperm(len(images), generator=random("unfamiliarity"))[:LOOKED_AT]
    given = [images[int(i)][0] for i in rows]
    shown = list(web(SHOWN).images.permute(0, 2, 3, 1))
    x, known = (normalize(generator.clip_embedding(some).cpu().double(), dim=1) for some in (given, shown))
    return float((1 - (x @ known.T).amax(1)).median())


def require_known(exp: Experiment, unknown_images: Literal["stop", "go on"] = "stop") -> None:
    """Raise UserError where the mini world's generator is given images of another world, before any training.

    A generator without the mini world's judge beside it is taken to know the images.
    """
    s = exp.sampling
    if unknown_images == "go on" or not Path(from_root(s.generator), JUDGE).is_file():
        return
    distance = unfamiliarity(exp.generator, exp.real)
    if distance > UNKNOWN:
        raise UserError(
            f"{s.generator} draws the mini world and does not know the images of {exp.bench.manifest.name}, "
            f"whose CLIP embeddings are {distance:.2f} from the nearest it knows (its own: below {UNKNOWN}): "
            "learn on features instead (fgsynth.extract, then fgsynth.LatentClassifier), or set "
            "sampling.generator to one of docs/generators.md and side to 224, after a look at what its "
            "images cost ('python -m fgsynth plan imagenet_lt --scale paper'); 'unknown_images: go on' goes "
            "on."
        )


def held_split(exp: Experiment) -> str:
    """The split that is reported, other than val, by which weak classes are found."""
    return "test" if (exp.bench.manifest.table["split"] == "test").any() else "final"


def reportable(exp: Experiment) -> NDArray[np.bool_]:
    """Which classes can be found weak and reported, (c,): those with held-out images for both."""
    there = exp.bench.manifest.table.groupby("split")["label"].agg(set)
    both = there.get("val", set()) & there.get(held_split(exp), set())
    return np.isin(np.arange(exp.n_classes), list(both))


def held_out_plan(exp: Experiment) -> str:
    """Say what the held-out images can tell and of which classes they cannot, before anything is computed.

    Raises UserError where no class has held-out images both to be found weak by and to be reported on.
    """
    m, can, held = exp.bench.manifest, reportable(exp), held_split(exp)
    if not can.any():
        raise UserError(
            f"{m.name}: no class has images both in val and in {held}: give some in every split, or at least "
            "three of a class in train alone, from which val and test are then drawn."
        )
    counts = {split: m.counts(split).numpy() for split in ("train", "val", held)}

    def listed(some: NDArray[np.bool_], *splits: str) -> str:
        """Name some classes, ten at most, with their images in splits."""
        each = [f"'{m.classes[y]}' ({' + '.join(str(counts[s][y]) for s in splits)})"
                for y in np.flatnonzero(some)]  # fmt: skip
        return ", ".join(each[:10]) + (f" and {len(each) - 10} more" if len(each) > 10 else "")

    lines = [f"{can.sum()} of {len(can)} classes can be found weak on val and reported on {held}."]
    if not can.all():
        lines.append(
            f"Not helped, for want of images in val or in {held} (train + val + {held}): "
            f"{listed(~can, 'train', 'val', held)}."
        )
    if (coarse := can & (counts[held] < COARSE)).any():
        lines.append(f"Of few {held} images an accuracy says little: {listed(coarse, held)}.")
    return "\n".join(lines)


def per_class(exp: Experiment, scored: Scored, split: str) -> NDArray[np.float64]:
    """Accuracy of every class in percent by seed, (seeds, c); NaN for a class that the split lacks."""
    label = exp.bench.manifest.rows(split)["label"].to_numpy()
    return np.stack([per_class_accuracy(p, label, exp.n_classes) for p in scored.predicted])


def weakest(exp: Experiment, scored: Scored, n: int) -> list[int]:
    """The n reportable classes of the lowest mean accuracy on val, of equal ones those of fewer images.

    Not on what is reported later, as the lowest of many are low by chance too.
    """
    mean, counts = per_class(exp, scored, "val").mean(0), exp.bench.manifest.counts().tolist()
    return sorted(np.flatnonzero(reportable(exp)).tolist(), key=lambda y: (mean[y], counts[y]))[:n]


def controlled(exp: Experiment, unguided: SyntheticSet, guided: SyntheticSet) -> dict[str, Row]:
    """Rows of equally many updates: real images alone, and with images of either set.

    Batches are mixed as the two sets are large, one image of each at least, and updates are as many as show
    every real image once an epoch then, unless the recipe says how many.
    """
    n, least = len(exp.real), 1 / exp.recipe.batch
    share = min(max(n / (n + len(guided.index)), least), 1 - least)
    mixed = replace(exp.recipe, real_share=share)
    mixed = replace(mixed, updates_per_epoch=mixed.updates(n, True))
    real = replace(exp.recipe, updates_per_epoch=mixed.updates_per_epoch)
    return {REAL_ONLY: Row(real), UNGUIDED: Row(mixed, unguided), FG_ENTROPY: Row(mixed, guided)}


PAIRS = ((FG_ENTROPY, REAL_ONLY), (FG_ENTROPY, UNGUIDED), (UNGUIDED, REAL_ONLY))
"""What is held against what: the whole, feedback alone, synthetic images alone."""


def effects(exp: Experiment, scored: dict[str, Scored], helped: Sequence[int]) -> pd.DataFrame:
    """Differences in mean class accuracy of the helped, the other and all classes, in points, with intervals.

    By `paired_interval`, over seeds and held-out images. Columns as in tables.COMPARED without scale.
    """
    split, name = held_split(exp), exp.bench.manifest.name
    label = exp.bench.manifest.rows(split)["label"].to_numpy()
    mine = np.isin(label, helped)
    parts = {"helped classes": mine, "other classes": ~mine, "all classes": mine | ~mine}
    rows = []
    for method, reference in PAIRS:
        a, b = (scored[one].predicted == label for one in (method, reference))
        for metric, some in parts.items():
            if some.any():
                d = paired_interval(a[:, some], b[:, some], label[some])
                rows.append((name, method, reference, metric, d.mean, d.low, d.high, len(a), split))
    return pd.DataFrame(rows, columns=COMPARED[1:])


def changes(exp: Experiment, scored: dict[str, Scored], helped: Sequence[int]) -> pd.DataFrame:
    """Tabulate every class: helped or not, images, accuracies by method, gains by `paired_interval`.

    The helped ones first, each part from the largest fall to the largest gain; a class without held-out
    images has neither accuracy nor gain.
    """
    m, split = exp.bench.manifest, held_split(exp)
    by = {name: per_class(exp, one, split) for name, one in scored.items()}
    label = m.rows(split)["label"].to_numpy()
    hits = {name: one.predicted == label for name, one in scored.items()}
    held = m.rows(split)["label"].value_counts()
    counts = m.counts().tolist()
    rows = []
    for y, name in enumerate(m.classes):
        row = {"class": name, "helped": y in helped, "real": counts[y], "held out": int(held.get(y, 0))}
        row |= {method: accuracy[:, y].mean() for method, accuracy in by.items()}
        mine = label == y
        for other in (REAL_ONLY, UNGUIDED):
            pair = (hits[FG_ENTROPY][:, mine], hits[other][:, mine], label[mine])
            row[f"over {other}"] = str(paired_interval(*pair)) if mine.any() else ""
        rows.append(row | {"gain": row[FG_ENTROPY] - row[REAL_ONLY]})
    return pd.DataFrame(rows).sort_values(["helped", "gain"], ascending=[False, True]).drop(columns="gain")


def export(exp: Experiment, made: SyntheticSet, folder: Path) -> pd.DataFrame:
    """Write a synthetic set as an image folder: train/<class>/<key>.png, and index.csv with what made each.

    The index can be read as a data set again (path, label, split); its `set` is the set's digest. Images that
    are there, of the same set, are left. Returns the index. Raises UserError for a folder of another set, and
    for classes whose names look alike.
    """
    classes = [folders.class_folder(name) for name in exp.bench.manifest.classes]
    folders.require_distinct("classes", classes, folder)
    names = [classes[y] for y in made.index["label"]]
    paths = [f"train/{name}/{file_name(key)}.png" for name, key in zip(names, made.index["key"], strict=True)]
    notes = made.index[["prompt", "condition", "seed", "criterion", "before", "after"]]
    notes = notes.assign(set=made.digest)
    index = pd.concat([pd.DataFrame({"path": paths, "label": names, "split": "train"}), notes], axis=1)
    folder = home(folder)
    text, there = index.to_csv(index=False), folder / "index.csv"
    if there.is_file() and there.read_text(encoding="utf-8") != text:
        raise UserError(f"{folder} holds another synthetic set: give another folder or remove it.")
    write_text(there, text)
    images = made.images
    for i, path in enumerate(progress(paths, "exported")):
        keep(folder / path, images[i][0].numpy())
    return index

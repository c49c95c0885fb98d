"""Classifiers of one benchmark: each trained once, kept under a fingerprint of what it depends on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fgsynth.data.benchmark import Benchmark
from fgsynth.data.sources import ImageFiles, Images, Source
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.models.networks import Classifier
from fgsynth.train import launch
from fgsynth.train.predict import ImagesAt, predict_classes, train_and_predict
from fgsynth.train.recipe import Compute, Recipe
from fgsynth.train.run_folder import Trained, finished
from fgsynth.train.train import train
from fgsynth.utils.cache import fingerprint
from fgsynth.utils.parallel import spread

TRAINING = ("data", "evaluate/metrics", "miniworld", "models", "train", "utils")
"""The code that a trained classifier depends on."""
WORTH = 60_000
"""Images seen by trainings that are worth starting processes for, which takes some ten seconds."""
Job = tuple[Recipe, int, SyntheticSet | None]
"""A training: recipe, seed, synthetic images."""


@dataclass(frozen=True)
class Trainings:
    """The images of a benchmark, and classifiers trained on them.

    work: folder of the trainings; side: pixels of a classifier's input, None for the images' own; workers:
    processes that read files; compute: how a machine computes a training.
    """

    bench: Benchmark
    work: Path
    side: int | None
    workers: int
    compute: Compute

    def images(self, split: str) -> Source:
        """The images of a split, in the manifest's order; as files, or in memory where there are none."""
        # Kept, as drawing them takes a second of every training otherwise.
        if split not in self._splits:
            self._splits[split] = self._load(split)
        return self._splits[split]

    @cached_property
    def _splits(self) -> dict[str, Source]:
        return {}

    def _load(self, split: str) -> Source:
        rows = self.bench.manifest.rows(split)
        label, context = (torch.tensor(rows[key].to_numpy()) for key in ("label", "context"))
        if self.bench.files is not None:
            return ImageFiles(tuple(self.bench.files(rows)), label, context)
        return Images(self.bench.images(rows), label, context)

    def sized(self, images: Source) -> ImagesAt:
        """Images at the size of a classifier's input; those in memory may have it already."""
        side = self.side
        if isinstance(images, Images) and images.x.shape[1:3] == (side, side):
            side = None
        return ImagesAt(images, side, self.workers)

    def train(self, recipe: Recipe, seed: int, synthetic: SyntheticSet | None = None) -> Trained:
        """Train a classifier on real, or real and synthetic, images; load it where it was trained before."""
        return self.deferred(recipe, seed, synthetic)()

    def train_all(self, jobs: Iterable[Job], split: str | None = None) -> None:
        """Train classifiers by recipe, seed and synthetic set, for `train` to load: one per core or GPU.

        split: whose classes they predict at once, for `predicted` to find.
        """
        # A job that several methods share is done once.
        todo = {self.folder(*job): job for job in jobs if not self._done(job, split)}
        images = self.sized(self.images(split)) if split else None
        work = [(self.deferred(*job), images, _file(folder, split)) for folder, job in todo.items()]
        bar = f"{self.bench.manifest.name}, classifiers"
        if torch.cuda.is_available():
            launch.each(train_and_predict, work, bar)
        else:
            spread(train_and_predict, work, bar, processes=self.processes(todo.values()))

    def processes(self, jobs: Iterable[Job]) -> int | None:
        """Processes that are worth starting for trainings of this size; None: as many as cores."""
        n = len(self.images("train"))
        shown = sum(r.epochs * r.updates(n, made is not None) * r.batch for r, _, made in jobs)
        return 1 if shown < WORTH or torch.cuda.is_available() else None

    def deferred(self, recipe: Recipe, seed: int, synthetic: SyntheticSet | None) -> Callable[[], Trained]:
        """Build the call of `train`, to be made in any process."""
        folder = self.folder(recipe, seed, synthetic)
        made, val = synthetic.images if synthetic else None, recipe.select != "last"
        held_out = self.images("val") if val else None
        n_classes = len(self.bench.manifest.classes)
        of = partial(train, self.images("train"), made, n_classes, recipe, seed, val=held_out)
        return partial(of, folder=folder, workers=self.workers, compute=self.compute, processes=None)

    def folder(self, recipe: Recipe, seed: int, synthetic: SyntheticSet | None = None) -> Path:
        """Where a classifier's run is kept."""
        made = synthetic.digest if synthetic else ""
        name = fingerprint(TRAINING, self.bench.digest, made, vars(recipe), seed)
        return self.work / self.bench.manifest.folder / "classifiers" / name

    def predicted(self, network: Classifier, split: str, folder: Path | None = None) -> NDArray[np.int64]:
        """The class that a network predicts of every image of a split; kept in the run's folder, if given."""
        file = _file(folder, split) if folder else None
        if file and file.is_file():
            return np.load(file)
        return predict_classes(network, self.sized(self.images(split)), file)

    def _done(self, job: Job, split: str | None) -> bool:
        folder = self.folder(*job)
        return finished(folder) and (split is None or _file(folder, split).is_file())


def _file(folder: Path, split: str | None) -> Path:
    """Where the classes predicted of a split are kept."""
    return folder / f"predicted-{split}.npy"

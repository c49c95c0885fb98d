"""Classifiers of one benchmark, trained and asked: each once, under a fingerprint of what it depends on."""

import json
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fgsynth.data.benchmark import Benchmark
from fgsynth.data.disk.image_set import ImageFiles
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.models.networks import Classifier
from fgsynth.train import distributed
from fgsynth.train.batches import Images, Source
from fgsynth.train.predict import Seen, predicted, trained_and_asked
from fgsynth.train.recipe import Compute, Recipe
from fgsynth.train.run_folder import Trained, finished
from fgsynth.utils.cache import fingerprint
from fgsynth.utils.parallel import spread
from fgsynth.utils.paths import write_text

TRAINING = ("data", "evaluate/metrics", "miniworld", "models", "train", "utils")
"""The code that a trained classifier depends on."""
WORTH = 60_000
"""Images seen by trainings that are worth starting processes for, which takes some ten seconds."""
Job = tuple[Recipe, int, SyntheticSet | None]
"""A training: recipe, seed, synthetic images."""
CLASSES = "classes.json"
"""The names of a trained classifier's classes, in its folder."""


class Trainings:
    """What an `Experiment` trains: the images of its benchmark, and classifiers on them by its recipes."""

    bench: Benchmark
    recipe: Recipe
    work: Path
    workers: int
    compute: Compute

    @property
    def n_classes(self) -> int:
        """Classes of the benchmark."""
        return len(self.bench.manifest.classes)

    @cached_property
    def real(self) -> Source:
        """The real training images."""
        return self.images("train")

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

    def seen(self, images: Source) -> Seen:
        """Images as this experiment's classifiers see them; those in memory may have their size already."""
        side = self.recipe.side
        if isinstance(images, Images) and images.x.shape[1:3] == (side, side):
            side = None
        return Seen(images, side, self.workers)

    def train(self, recipe: Recipe, seed: int, synthetic: SyntheticSet | None = None) -> Trained:
        """A classifier on real, or real and synthetic, images; loaded where it was trained before."""
        return self.training(recipe, seed, synthetic)()

    def train_all(self, jobs: Iterable[Job], split: str | None = None) -> None:
        """Classifiers by recipe, seed and synthetic set, for `train` to load: one per core or GPU at a time.

        split: whose classes they predict at once, for `predicted` to find.
        """
        # A job that several methods share is done once.
        todo = {self.run_folder(*job): job for job in jobs if not self._done(job, split)}
        asked = self.seen(self.images(split)) if split else None
        work = [(self.training(*job), asked, self._kept(folder, split)) for folder, job in todo.items()]
        bar = f"{self.bench.manifest.name}, classifiers"
        if torch.cuda.is_available():
            distributed.each(trained_and_asked, work, bar)
        else:
            spread(trained_and_asked, work, bar, processes=self.processes(todo.values()))

    def processes(self, jobs: Iterable[Job]) -> int | None:
        """How many processes are worth it for trainings of this size; None: as many as cores."""
        seen = sum(r.epochs * r.updates(len(self.real), made is not None) * r.batch for r, _, made in jobs)
        return 1 if seen < WORTH or torch.cuda.is_available() else None

    def training(self, recipe: Recipe, seed: int, synthetic: SyntheticSet | None) -> Callable[[], Trained]:
        """What `train` does, to be done in any process."""
        folder = self.run_folder(recipe, seed, synthetic)
        write_text(folder / CLASSES, json.dumps(self.bench.manifest.classes))
        made, val = synthetic.images if synthetic else None, recipe.select != "last"
        held_out = self.images("val") if val else None
        of = partial(distributed.train, self.real, made, self.n_classes, recipe, seed, val=held_out)
        return partial(of, folder=folder, workers=self.workers, compute=self.compute)

    def run_folder(self, recipe: Recipe, seed: int, synthetic: SyntheticSet | None = None) -> Path:
        """Where a classifier's run is kept."""
        made = synthetic.digest if synthetic else ""
        name = fingerprint(TRAINING, self.bench.manifest.digest, made, vars(recipe), seed)
        return self.work / self.bench.manifest.name / "classifiers" / name

    def predicted(self, network: Classifier, split: str, folder: Path | None = None) -> NDArray[np.int64]:
        """The class that a network says of every image of a split; kept in the run's folder, if given."""
        kept = self._kept(folder, split) if folder else None
        if kept and kept.is_file():
            return np.load(kept)
        return predicted(network, self.seen(self.images(split)), kept)

    def _done(self, job: Job, split: str | None) -> bool:
        folder = self.run_folder(*job)
        return finished(folder) and (split is None or self._kept(folder, split).is_file())

    def _kept(self, folder: Path, split: str | None) -> Path:
        return folder / f"predicted-{split}.npy"

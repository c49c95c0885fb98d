"""One experiment on pictures: a real imbalanced set, its guide, synthetic sets, classifiers (FG 3, 4)."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fgsynth import distributed
from fgsynth.batches import Pictures, Source
from fgsynth.benchmarks.disk.picture_set import PictureFiles
from fgsynth.benchmarks.manifest import Benchmark, require_labels
from fgsynth.classifiers import Seen, predicted, trained_and_asked
from fgsynth.criteria import CRITERIA, Criterion, Hardness
from fgsynth.engines import LOCAL, Engine, fill
from fgsynth.errors import UserError
from fgsynth.generator import Dropout, Generator
from fgsynth.guidance import Guidance
from fgsynth.networks import Classifier
from fgsynth.paths import write_text
from fgsynth.pieces import Maker
from fgsynth.plans import Method, missing_per_group, plan, speaking
from fgsynth.processes import spread
from fgsynth.recipe import Compute, Recipe
from fgsynth.resolution import at_resolution, shrunk
from fgsynth.seeds import stable_seed
from fgsynth.settings import Sampling
from fgsynth.shards import Make, Store
from fgsynth.synthesis import Feedback, Plan, synthesise
from fgsynth.synthetic import SyntheticSet
from fgsynth.textual_inversion import Inversion
from fgsynth.trained import Trained, finished, load
from fgsynth.training import COMPUTE
from fgsynth.work import fingerprint, model_digest, weights_digest

_BOTH = ("benchmarks", "drawing", "metrics", "miniworld", "networks", "objective", "pictures", "seeds")
SYNTHESIS = (
    *_BOTH,
    *("augment", "batches", "criteria", "engines", "experiment", "families", "generator", "guidance"),
    *("losses", "pieces", "plans", "recipe", "resolution", "sampler", "schedule", "shards", "synthesis"),
    *("tars", "textual_inversion"),
)
TRAINING = (
    *_BOTH,
    *("augment", "baselines", "batches", "checkpoint", "clip", "decoupled", "fit", "losses", "ranks"),
    *("recipe", "stopping", "threads", "trained", "training", "twostage"),
)
"""The code that a synthetic set and a trained classifier depend on."""
WORTH = 60_000
"""Pictures seen by trainings that are worth starting processes for, which takes some ten seconds."""
Job = tuple[Recipe, int, SyntheticSet | None]
"""A training: recipe, seed, synthetic pictures."""
CLASSES = "classes.json"
"""The names of a trained classifier's classes, in its folder."""


@dataclass(frozen=True)
class Experiment:
    """What all methods of a comparison share: benchmark, generator, settings, recipe of the classifiers.

    work: a folder of results under the fingerprints of what they depend on; whatever is there is not made
    again, so that a killed run goes on where it was, and the folder can be deleted at any time.
    seed: of guide and synthesis. guide_folder: a classifier that was trained before, to guide instead.
    elsewhere: from a method, what makes its pictures on other machines. workers: processes that read files;
    compute: how a machine computes trainings.
    """

    bench: Benchmark
    generator: Generator
    sampling: Sampling
    recipe: Recipe
    work: Path
    seed: int = 0
    guide_folder: Path | None = None
    elsewhere: Callable[[Method], Maker] | None = None
    workers: int = 0
    compute: Compute = COMPUTE

    @property
    def guide_recipe(self) -> Recipe:
        """The guide is trained as the classifiers are, but by ERM, whose last epoch it is (FG step 1)."""
        return replace(self.recipe, balanced=0.0, objective=None, select="last")

    @property
    def n_classes(self) -> int:
        """Classes of the benchmark."""
        return len(self.bench.manifest.classes)

    @cached_property
    def side(self) -> int:
        """Pixels of what the classifiers see: the recipe's, else the benchmark's own."""
        first = self.bench.manifest.rows("train").head(1)
        return self.recipe.side or self.bench.pictures(first).shape[1]

    @cached_property
    def real(self) -> Source:
        """The real training pictures."""
        return self.pictures("train")

    def pictures(self, split: str) -> Source:
        """The pictures of a split, in the manifest's order; as files, or in memory where there are none."""
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
            return PictureFiles(tuple(self.bench.files(rows)), label, context)
        return Pictures(self.bench.pictures(rows), label, context)

    def seen(self, pictures: Source) -> Seen:
        """Pictures as this experiment's classifiers see them; those in memory may have their size already."""
        side = self.recipe.side
        if isinstance(pictures, Pictures) and pictures.x.shape[1:3] == (side, side):
            side = None
        return Seen(pictures, side, self.workers)

    @cached_property
    def guide(self) -> Classifier:
        """The classifier whose feedback guides, trained on the real imbalanced set alone (FG step 1).

        Raises UserError for a guide that was trained for other classes.
        """
        if self.guide_folder is not None:
            known = json.loads((self.guide_folder / CLASSES).read_text(encoding="utf-8"))
            require_labels(known, self.bench.manifest, f"The guide in {self.guide_folder}")
            return load(self.guide_folder).network
        return self.train(self.guide_recipe, stable_seed("guide", self.seed)).network

    @property
    def guide_is_there(self) -> bool:
        """Whether the guide was trained before."""
        folder = self.guide_folder or self.run_folder(self.guide_recipe, stable_seed("guide", self.seed))
        return finished(folder)

    @cached_property
    def hardness(self) -> Hardness:
        """Hardness fitted to the guide's embeddings of the real pictures.

        Raises UserError for a class of one picture, which says nothing of how its pictures differ.
        """
        if (lonely := (self.bench.manifest.counts() < 2).nonzero()).numel():
            named = self.bench.manifest.classes[int(lonely[0])]
            raise UserError(
                f"{self.bench.manifest.name}: class '{named}' has fewer than two training pictures: "
                "add some, leave the class out, or guide without hardness."
            )
        embedding = self.seen(self.real).by(self.guide.to(self.generator.device))[1]
        return Hardness.fit(embedding, self.real.label, self.n_classes).to(self.generator.device)

    def criterion(self, name: str) -> Criterion:
        """Entropy, loss or hardness; only the last is fitted, when it is asked for."""
        return self.hardness if name == "hardness" else CRITERIA[name]

    @cached_property
    def missing(self) -> NDArray[np.int64]:
        """Synthetic pictures per class or group: what it lacks to the largest, or to `fill_to`."""
        return self._missing(1.0)

    def _missing(self, whole: float) -> NDArray[np.int64]:
        return missing_per_group(self.bench.manifest.fill_counts(), self.sampling.fill_to, whole)

    def synthetic(
        self, method: Method, whole: float = 1.0, per_group: NDArray[np.int64] | None = None
    ) -> SyntheticSet:
        """The synthetic set of a method, made or completed where it is not there yet.

        whole: times the missing pictures; per_group: another number for every group instead.
        """
        store, digest = self.complete(method, whole, per_group)
        return SyntheticSet.of(store, digest)

    def complete(
        self,
        method: Method,
        whole: float = 1.0,
        per_group: NDArray[np.int64] | None = None,
        engine: Engine = LOCAL,
    ) -> tuple[Store, str]:
        """The store of a synthetic set and its digest, with what was missing made by an engine.

        As one of several workers, only its own shards. Raises UserError and Stopped as `engines.fill`.
        """
        each = self._missing(whole) if per_group is None else per_group
        table = plan(self.bench, each, self.seed, method.image)
        digest = self._digest(method, table)
        folder = self.work / self.bench.manifest.name / "synthetic" / digest
        store = Store(folder, table, self.sampling.per_shard)
        self.speaking(method)
        maker: Maker = partial(self.maker, method)
        if engine.name != "local" and self.elsewhere is not None:
            maker = self.elsewhere(method)
        fill(store, maker, f"{self.bench.manifest.name}, synthetic pictures", engine)
        return store, digest

    def maker(self, method: Method) -> Make:
        """What makes a method's pictures of rows of a plan."""
        return partial(self._make, method=method)

    def speaking(self, method: Method) -> Generator:
        """The generator that makes a method's pictures, as `plans.speaking`; words are learned here, once."""
        inversion = method.inversion
        if inversion is None:
            return self.generator
        if inversion not in self._spoken:
            of, model = self.bench.manifest, model_digest(self.sampling.generator)
            name = fingerprint(SYNTHESIS, of.digest, model, self.sampling.dtype, vars(inversion), self.seed)
            folder = self.work / of.name / "words" / name
            self._spoken[inversion] = speaking(self.generator, self.bench, inversion, self.seed, folder)
        return self._spoken[inversion]

    @cached_property
    def _spoken(self) -> dict[Inversion, Generator]:
        return {}

    def train(self, recipe: Recipe, seed: int, synthetic: SyntheticSet | None = None) -> Trained:
        """A classifier on real, or real and synthetic, pictures; loaded where it was trained before."""
        return self.training(recipe, seed, synthetic)()

    def train_all(self, jobs: Iterable[Job], split: str | None = None) -> None:
        """Classifiers by recipe, seed and synthetic set, for `train` to load: one per core or GPU at a time.

        split: whose classes they predict at once, for `predicted` to find.
        """
        # A job that several methods share is done once.
        todo = {self.run_folder(*job): job for job in jobs if not self._done(job, split)}
        asked = self.seen(self.pictures(split)) if split else None
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
        made, val = synthetic.pictures if synthetic else None, recipe.select != "last"
        held_out = self.pictures("val") if val else None
        of = partial(distributed.train, self.real, made, self.n_classes, recipe, seed, val=held_out)
        return partial(of, folder=folder, workers=self.workers, compute=self.compute)

    def run_folder(self, recipe: Recipe, seed: int, synthetic: SyntheticSet | None = None) -> Path:
        """Where a classifier's run is kept."""
        made = synthetic.digest if synthetic else ""
        name = fingerprint(TRAINING, self.bench.manifest.digest, made, vars(recipe), seed)
        return self.work / self.bench.manifest.name / "classifiers" / name

    def predicted(self, network: Classifier, split: str, folder: Path | None = None) -> NDArray[np.int64]:
        """The class that a network says of every picture of a split; kept in the run's folder, if given."""
        kept = self._kept(folder, split) if folder else None
        if kept and kept.is_file():
            return np.load(kept)
        return predicted(network, self.seen(self.pictures(split)), kept)

    def _done(self, job: Job, split: str | None) -> bool:
        folder = self.run_folder(*job)
        return finished(folder) and (split is None or self._kept(folder, split).is_file())

    def _kept(self, folder: Path, split: str | None) -> Path:
        return folder / f"predicted-{split}.npy"

    def _digest(self, method: Method, table: pd.DataFrame) -> str:
        s = self.sampling.model_dump()
        guide = weights_digest(self.guide) if method.criteria else ""
        rows = table.to_csv(index=False)
        model, of = model_digest(self.sampling.generator), self.bench.manifest.digest
        return fingerprint(SYNTHESIS, of, model, s, vars(method), guide, rows)

    def _make(self, rows: pd.DataFrame, method: Method) -> tuple[NDArray[np.uint8], pd.DataFrame]:
        s, g = self.sampling, self.speaking(method)
        seeds = rows["seed"].tolist()
        if method.image:
            train = self.bench.manifest.rows("train").set_index("key", drop=False)
            shown = self.bench.shown(train.loc[rows["condition"]].reset_index(drop=True))
            image = g.embed_image(shown, seeds, Dropout(method.dropout), s.noise_level)
        else:
            image = g.no_image(len(rows))
        asked = Plan(rows["prompt"].tolist(), image, torch.tensor(rows["label"].to_numpy()), seeds)
        cfg = s.cfg if method.image else s.cfg_text
        made = synthesise(g, asked, cfg, self._feedback(method), batch=s.batch)
        notes = pd.DataFrame(
            {
                "criterion": "+".join(method.criteria),
                "before": made.before.double().numpy(),
                "after": made.after.double().numpy(),
                "non_finite": made.non_finite.numpy(),
            }
        )
        return shrunk(made.pictures, s.side).numpy(), notes

    def _feedback(self, method: Method) -> Feedback | None:
        if not method.criteria:
            return None
        s = self.sampling
        guidance = Guidance(
            method.scale, every=s.every, start=s.start, stop=s.stop, through_network=s.through_network
        )
        chosen = {name: self.criterion(name) for name in method.criteria}
        guide = at_resolution(self.guide.to(self.generator.device), self.side)
        return Feedback(guide, chosen, self.n_classes, guidance)

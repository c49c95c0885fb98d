"""One experiment on images: a real imbalanced set, its guide, synthetic sets, classifiers (FG 3, 4)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from fgsynth.config.schema import Inversion, Sampling
from fgsynth.data.benchmark import Benchmark
from fgsynth.data.sources import Source
from fgsynth.experiments.trainings import TRAINING, Trainings
from fgsynth.generate.compose import guidance_of, make_images
from fgsynth.generate.engines import LOCAL, Engine, fill
from fgsynth.generate.generator import Generator
from fgsynth.generate.pieces import Maker
from fgsynth.generate.pipelines import PLUS
from fgsynth.generate.plan import Method, missing_per_group, plan, with_learned_words
from fgsynth.generate.resize import at_resolution
from fgsynth.generate.store import Make, Store
from fgsynth.generate.synthesise import Feedback
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.guidance.criteria import CRITERIA, Criterion, Hardness, bald
from fgsynth.models.networks import Classifier
from fgsynth.train.recipe import Compute, Recipe
from fgsynth.train.run_folder import finished
from fgsynth.train.train import COMPUTE
from fgsynth.utils.cache import fingerprint, model_digest, weights_digest
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import stable_seed

SYNTHESIS = (*TRAINING, "experiments/experiment", "generate", "guidance")
"""The code that a synthetic set depends on."""


@dataclass(frozen=True)
class Experiment:
    """Everything that the methods of a comparison share: benchmark, generator, settings, recipe.

    work: a folder of results under the fingerprints of what they depend on; whatever is there is not made
    again, so that a killed run goes on where it was, and the folder can be deleted at any time.
    seed: of guide and synthesis. guided_by: a network to guide instead of the guide trained here.
    remote_maker: from a method, what makes its images on other machines. workers: processes that read files;
    compute: how a machine computes trainings.
    """

    bench: Benchmark
    generator: Generator
    sampling: Sampling
    recipe: Recipe
    work: Path
    seed: int = 0
    remote_maker: Callable[[Method], Maker] | None = None
    workers: int = 0
    compute: Compute = COMPUTE
    guided_by: Classifier | None = None

    def __post_init__(self) -> None:
        """Refuse prompts that are too long here, before anything is trained."""
        m = self.bench.manifest
        self.generator.check_prompts(
            [self.bench.prompt(y, c) for y in range(len(m.classes)) for c in range(len(m.contexts))]
        )

    @cached_property
    def trainings(self) -> Trainings:
        """The images of the benchmark and the classifiers trained on them."""
        return Trainings(self.bench, self.work, self.recipe.side, self.workers, self.compute)

    @property
    def n_classes(self) -> int:
        """Classes of the benchmark."""
        return len(self.bench.manifest.classes)

    @property
    def real(self) -> Source:
        """The real training images."""
        return self.trainings.images("train")

    def outputs(self, network: Classifier, images: Source) -> tuple[Tensor, Tensor]:
        """Logits (n, c) and embeddings (n, k) of images by a network of the experiment, on the CPU."""
        return self.trainings.sized(images).outputs(network)

    def sampled(self, **changes: Any) -> "Experiment":
        """The experiment with other settings of sampling, on which its guide does not depend."""
        sampling = self.sampling.model_copy(update=changes)
        generator = self.generator.in_steps(sampling.n_steps)
        return replace(self, sampling=sampling, generator=generator, guided_by=self.guide, remote_maker=None)

    @property
    def guide_recipe(self) -> Recipe:
        """The guide is trained as the classifiers are, but by ERM, whose last epoch it is (FG step 1)."""
        return replace(self.recipe, balanced=0.0, objective=None, select="last")

    @cached_property
    def side(self) -> int:
        """Pixels of a classifier's input: the recipe's, else the benchmark's own."""
        first = self.bench.manifest.rows("train").head(1)
        return self.recipe.side or self.bench.images(first).shape[1]

    @cached_property
    def guide(self) -> Classifier:
        """The classifier whose feedback guides, trained on the real imbalanced set alone (FG step 1)."""
        if self.guided_by is not None:
            return self.guided_by
        return self.trainings.train(self.guide_recipe, stable_seed("guide", self.seed)).network

    @property
    def guide_is_there(self) -> bool:
        """Whether the guide was trained before."""
        folder = self.trainings.folder(self.guide_recipe, stable_seed("guide", self.seed))
        return self.guided_by is not None or finished(folder)

    @cached_property
    def hardness(self) -> Hardness:
        """Hardness fitted to the guide's embeddings of the real images.

        Raises UserError for a class of a single image, which has no covariance.
        """
        if (lonely := (self.bench.manifest.counts() < 2).nonzero()).numel():
            named = self.bench.manifest.classes[int(lonely[0])]
            raise UserError(
                f"{self.bench.manifest.name}: class '{named}' has fewer than two training images: "
                "add some, leave the class out, or guide without hardness."
            )
        return Hardness.fit(self._embedding, self.real.label, self.n_classes).to(self.generator.device)

    @cached_property
    def _embedding(self) -> Tensor:
        """The guide's of the real images, on the CPU."""
        return self.outputs(self.guide.to(self.generator.device), self.real)[1]

    def criterion(self, name: str) -> Criterion:
        """A criterion by name; hardness is fitted at its first use."""
        return self.hardness if name == "hardness" else {**CRITERIA, "bald": bald}[name]

    @cached_property
    def missing(self) -> NDArray[np.int64]:
        """Synthetic images per class or group: what it lacks to the largest, or to `fill_to`."""
        return self._missing(1.0)

    def _missing(self, whole: float) -> NDArray[np.int64]:
        return missing_per_group(self.bench.manifest.fill_counts(), self.sampling.fill_to, whole)

    def synthetic(
        self,
        method: Method,
        whole: float = 1.0,
        per_group: NDArray[np.int64] | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> SyntheticSet:
        """The synthetic set of a method, made or completed where it is not there yet.

        whole: times the missing images; per_group: another number for every group instead. part (k, n):
        of every group each n-th image from the k-th on, so that the n parts together are the set.
        """
        store, digest = self.complete(method, whole, per_group, part=part)
        return SyntheticSet.of(store, digest)

    def complete(
        self,
        method: Method,
        whole: float = 1.0,
        per_group: NDArray[np.int64] | None = None,
        engine: Engine = LOCAL,
        part: tuple[int, int] = (0, 1),
    ) -> tuple[Store, str]:
        """The store of a synthetic set and its digest, with what was missing made by an engine.

        As one of several workers, only its own shards. part: as of `synthetic`. Raises UserError and
        Stopped as `engines.fill`, and UserError as `plan`.
        """
        each = self._missing(whole) if per_group is None else per_group
        table = plan(self.bench, each, self.seed, method.image)
        table = table[table["index"] % part[1] == part[0]].reset_index(drop=True)
        digest = self._digest(method, table)
        folder = self.work / self.bench.manifest.folder / "synthetic" / digest
        store = Store(folder, table, self.sampling.per_shard)
        self.generator_of(method)
        maker: Maker = partial(self.maker, method)
        if engine.name != "local" and self.remote_maker is not None:
            maker = self.remote_maker(method)
        fill(store, maker, f"{self.bench.manifest.name}, synthetic images", engine)
        return store, digest

    def maker(self, method: Method) -> Make:
        """Build the function that makes a method's images of rows of a plan."""

        def make(rows: pd.DataFrame) -> tuple[NDArray[np.uint8], pd.DataFrame]:
            """Make the images of rows of a plan, (n, h, w, 3), and what is noted of each."""
            generator, feedback = self.generator_of(method), self._feedback(method)
            return make_images(rows, method, self.bench, generator, self.sampling, feedback)

        return make

    def generator_of(self, method: Method) -> Generator:
        """Generator of a method, with its words, if any, learned once: `plan.with_learned_words`."""
        inversion = method.inversion
        if inversion is None:
            return self.generator
        if inversion not in self._with_words:
            chosen = {key: self.made_by[key] for key in ("generator", "revision", "dtype")}
            name = fingerprint(SYNTHESIS, self.bench.digest, chosen, vars(inversion), self.seed)
            folder = self.work / self.bench.manifest.folder / "words" / name
            self._with_words[inversion] = with_learned_words(
                self.generator, self.bench, inversion, self.seed, folder
            )
        return self._with_words[inversion]

    @cached_property
    def _with_words(self) -> dict[Inversion, Generator]:
        return {}

    @property
    def made_by(self) -> dict[str, Any]:
        """What decides synthetic images beside benchmark, guide and method: settings, models by contents."""
        s = self.sampling
        generator = PLUS.join(map(model_digest, s.generator.split(PLUS)))
        models = {"generator": generator, "tiny_decoder": model_digest(s.tiny_decoder or "")}
        return s.model_dump() | models

    def _digest(self, method: Method, table: pd.DataFrame) -> str:
        guide = weights_digest(self.guide) if method.criteria else ""
        rows = table.to_csv(index=False)
        return fingerprint(SYNTHESIS, self.bench.digest, self.made_by, vars(method), guide, rows)

    def _feedback(self, method: Method) -> Feedback | None:
        if not method.criteria:
            return None
        chosen = {name: self.criterion(name) for name in method.criteria}
        guide = at_resolution(self.guide.to(self.generator.device), self.side)
        return Feedback(guide, chosen, self.n_classes, guidance_of(self.sampling, method.scale))

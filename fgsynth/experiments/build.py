"""An experiment from the parameters of a notebook, here or on another machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from fgsynth.config import params
from fgsynth.config.schema import Classification, Sampling, validated
from fgsynth.data.benchmark import Benchmark
from fgsynth.data.registry import WORLDS, draw
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.generator import Generator
from fgsynth.generate.pipelines import PLUS
from fgsynth.generate.plan import Method
from fgsynth.generate.store import Make
from fgsynth.train.recipe import Compute, Recipe
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import from_root, place, root


def planned(stage: str) -> params.Params:
    """params.yaml, for a stage that makes synthetic sets. Raises UserError for any other stage."""
    if stage not in WORLDS:
        raise UserError(f"No synthetic sets are planned for '{stage}': choose one of {', '.join(WORLDS)}.")
    return params.load(root() / "params.yaml")


@dataclass(frozen=True)
class ExperimentSettings:
    """The settings of an experiment: plain values, which other machines can be sent.

    Raises UserError for a benchmark that does not exist, and for an unknown or mistyped key.
    """

    name: str
    world: Mapping[str, Any]
    sampling: Mapping[str, Any]
    training: Mapping[str, Any]
    work: str
    seed: int = 0

    def experiment(self) -> Experiment:
        """The benchmark drawn, the generator loaded on a GPU where there is one."""
        bench, sampling, training = draw(self.name, self.world), self.sampling, self.training
        remote = partial(RemoteMaker, self)
        return of_benchmark(bench, sampling, training, self.work, self.seed, remote_maker=remote)


@dataclass(frozen=True)
class RemoteMaker:
    """Load an experiment's generator and guide where it is called, to make a method's images there."""

    settings: ExperimentSettings
    method: Method

    def __call__(self) -> Make:
        """Build the function that makes the method's images."""
        return self.settings.experiment().maker(self.method)


def of_world(
    name: str,
    world: Mapping[str, Any],
    sampling: Mapping[str, Any],
    training: Mapping[str, Any],
    work: str,
    seed: int = 0,
) -> Experiment:
    """An experiment from a notebook's parameters; raises UserError as `ExperimentSettings`."""
    return ExperimentSettings(name, world, sampling, training, work, seed).experiment()


def of_benchmark(
    bench: Benchmark,
    sampling: Mapping[str, Any],
    training: Mapping[str, Any],
    work: str,
    seed: int = 0,
    **more: Any,
) -> Experiment:
    """An experiment on a benchmark that is there, by checked settings; work: a folder below the root.

    Raises UserError for an unknown or mistyped key, and for images in files without a side to see them at.
    """
    s: Sampling = validated(Sampling, sampling, "sampling")
    t: Classification = validated(Classification, training, "training")
    if bench.files is not None and t.side is None:
        raise UserError(
            f"training: key 'side' is missing: the images of {bench.manifest.name} are files of several "
            "sizes, so say at how many pixels classifiers see them."
        )
    more |= {"workers": t.workers, "compute": Compute(t.precision, t.accumulate)}
    return Experiment(bench, generator_of(s), s, Recipe.of(t), place(work), seed, **more)


def generator_of(s: Sampling) -> Generator:
    """The generator that settings name, on a GPU where there is one. Raises UserError as `Generator.load`."""
    return Generator.load(
        PLUS.join(map(from_root, s.generator.split(PLUS))),
        s.n_steps,
        device="cuda" if torch.cuda.is_available() else "cpu",
        dtype=getattr(torch, s.dtype),
        revision=s.revision,
        tiny_decoder=from_root(s.tiny_decoder) if s.tiny_decoder else None,
    )

"""Variance components: what the draw of the world, of the set, of the classifier, and rounding add."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from fgsynth.config import params
from fgsynth.config.names import BALANCED_SOFTMAX, FG_ENTROPY, UNGUIDED
from fgsynth.config.schema import LongTail, Sampling
from fgsynth.data import mini
from fgsynth.evaluate.scores import evaluate
from fgsynth.experiments.experiment import Experiment
from fgsynth.experiments.trainings import Trainings
from fgsynth.generate.generator import Generator
from fgsynth.generate.methods import methods
from fgsynth.train.recipe import Recipe
from fgsynth.utils import paths
from fgsynth.utils.environment import PORTABLE
from fgsynth.utils.progress import progress

WORK = Path("data/work/variance")
SPLIT = "test"
METRICS = ("overall", "many", "medium", "few")


@dataclass(frozen=True)
class Setup:
    """Numbers of draws, and the setting that all of them share."""

    worlds: int
    sets: int
    classifiers: int
    tail: LongTail
    sampling: Sampling
    recipe: Recipe
    generator: Generator
    work: Path


def rows(setup: Setup, rounding: str) -> Iterator[dict[str, Any]]:
    """Train the classifiers of one rounding: a row for each, with its accuracies on `test`. Resumes.

    "own": as the processor rounds, every draw; "portable": the first set of every world. Sets and guides are
    those of "own". Seeds of sets and classifiers are new in every draw.
    """
    cells = [(w, s) for w in range(setup.worlds) for s in range(setup.sets if rounding == "own" else 1)]
    for world, number in progress(cells, f"variance, {rounding}"):
        draw = setup.sets * world + number
        bench = mini.imagenet_lt(setup.tail.model_copy(update={"seed": world}))
        exp = Experiment(bench, setup.generator, setup.sampling, setup.recipe, setup.work, draw)
        known = methods(setup.sampling)
        made = {BALANCED_SOFTMAX: None, **{m: exp.synthetic(known[m]) for m in (UNGUIDED, FG_ENTROPY)}}
        trainings = Trainings(bench, setup.work / rounding, exp.recipe.side, exp.workers, exp.compute)
        for method, synthetic in made.items():
            for c in range(setup.classifiers):
                job = (exp.recipe, setup.classifiers * draw + c, synthetic)
                network = trainings.train(*job).network
                predicted = trainings.predicted(network, SPLIT, trainings.folder(*job))
                accuracy = evaluate(bench, predicted, SPLIT)
                key = {"world": world, "set": number, "classifier": c, "rounding": rounding, "method": method}
                yield from ({**key, "metric": m, "value": accuracy[m]} for m in METRICS)


def measure(root: Path) -> None:
    """Run by params.yaml and write reports/variance: rows.csv and components.csv. Long; resumes."""
    everything = params.load(root / "params.yaml")
    settings, point = everything.variance, everything.mini.imagenet_lt
    generator = Generator.load(paths.from_root(point.sampling.generator), point.sampling.n_steps)
    setup = Setup(settings.worlds, settings.sets, settings.classifiers, point.world, point.sampling,
                  Recipe.of(point.training), generator, root / WORK)  # fmt: skip
    if os.environ.get(PORTABLE) == "1":
        list(rows(setup, "portable"))
        return
    own = list(rows(setup, "own"))
    subprocess.run(
        [sys.executable, "-m", "fgsynth", "variance"], check=True, env={**os.environ, PORTABLE: "1"}
    )
    table = pd.DataFrame([*own, *rows(setup, "portable")])
    paths.write_text(
        root / "reports" / "variance" / "rows.csv", table.to_csv(index=False, float_format="%.6g")
    )

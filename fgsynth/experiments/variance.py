"""Variance components: what the draw of the world, of the set, of the classifier, and rounding add."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from fgsynth.config import params
from fgsynth.config.names import BALANCED_SOFTMAX, FG_ENTROPY, UNGUIDED
from fgsynth.config.params import Variance
from fgsynth.config.tables import ImagenetLt
from fgsynth.data import mini
from fgsynth.data.benchmark import Benchmark, strata
from fgsynth.data.registry import draw
from fgsynth.evaluate.draws import components
from fgsynth.evaluate.metrics import interval, paired_interval
from fgsynth.evaluate.scores import evaluate
from fgsynth.experiments.experiment import Experiment
from fgsynth.experiments.trainings import Trainings
from fgsynth.generate.generator import Generator
from fgsynth.generate.methods import methods
from fgsynth.train.recipe import Recipe
from fgsynth.utils import paths
from fgsynth.utils.environment import PORTABLE
from fgsynth.utils.errors import UserError
from fgsynth.utils.progress import progress

WORK = Path("data/work/variance")
SPLIT = "test"
METRICS = ("overall", "many", "medium", "few")
PAIRS = ((UNGUIDED, BALANCED_SOFTMAX), (FG_ENTROPY, UNGUIDED))
OWN, PINNED = "own", "portable"
"""Ways of rounding: the processor's, and that of `environment.portable`."""
COLUMNS = ["world", "set", "rounding", "method", "classifier", "metric", "value"]
Runs = dict[tuple[int, int, str, str], tuple[Benchmark, NDArray[np.int64]]]
"""By world, set, rounding and method what its classifiers predict of the test images, (classifiers, n)."""


def runs(settings: Variance, point: ImagenetLt, generator: Generator, work: Path, rounding: str) -> Runs:
    """Train the classifiers of one way of rounding, or load them. Long; resumes.

    Of the processor's rounding every draw, of the portable one the first set of every world: on the same
    sets, which the processor's made. Every set has seeds of its own, those of its classifiers among them.
    """
    found: Runs = {}
    sets, recipe, known = settings.sets, Recipe.of(point.training), methods(point.sampling)
    cells = [(world, k) for world in range(settings.worlds) for k in range(sets if rounding == OWN else 1)]
    for world, number in progress(cells, f"variance, {rounding}"):
        bench, seed = draw(mini.IMAGENET_LT, {**dict(point.world), "seed": world}), sets * world + number
        exp = Experiment(bench, generator, point.sampling, recipe, work, seed)
        trainings = Trainings(bench, work / rounding, recipe.side, exp.workers, exp.compute)
        for method in (BALANCED_SOFTMAX, UNGUIDED, FG_ENTROPY):
            made = exp.synthetic(known[method]) if method in known else None
            predicted = []
            for classifier in range(settings.classifiers * seed, settings.classifiers * (seed + 1)):
                network = trainings.train(recipe, classifier, made).network
                folder = trainings.folder(recipe, classifier, made)
                predicted.append(trainings.predicted(network, SPLIT, folder))
            found[world, number, rounding, method] = bench, np.stack(predicted)
    return found


def accuracies(found: Runs) -> pd.DataFrame:
    """Tidy accuracies of every classifier, in percent, with COLUMNS."""
    each = [
        (*key, i, metric, value)
        for key, (bench, predicted) in found.items()
        for i, one in enumerate(predicted)
        for metric, value in evaluate(bench, one, SPLIT).items()
        if metric in METRICS
    ]
    return pd.DataFrame(each, columns=COLUMNS)


def tabulate(rows: pd.DataFrame, found: Runs) -> pd.DataFrame:
    """Components of differences, in points: method, reference, metric, mean, source, sd, df, p.

    As of `draws.components`. Worlds differ by their test images as well: what these alone add, within a
    world, is the source "images", which is a part of "world".
    """
    wide = rows.pivot_table("value", ["rounding", "metric", "world", "set", "classifier"], "method")
    worlds, sets = rows["world"].nunique(), rows["set"].nunique()
    parts = []
    for method, reference in PAIRS:
        for metric in METRICS:
            own, again = (
                (wide[method] - wide[reference])[how, metric].to_numpy().reshape(worlds, n, -1)
                for how, n in ((OWN, sets), (PINNED, 1))
            )
            images = pd.DataFrame({"source": ["images"], "sd": [_images(found, method, reference, metric)]})
            part = pd.concat([components(own, again[:, 0]), images])
            key = {"method": method, "reference": reference, "metric": metric, "mean": own.mean()}
            parts.append(part.assign(**key)[[*key, *part]])
    return pd.concat(parts)


def _images(found: Runs, method: str, reference: str, metric: str) -> float:
    """Standard deviation of a difference that is due to test images, the quadratic mean over sets."""
    each = []
    for (world, number, rounding, name), (bench, predicted) in found.items():
        if (rounding, name) == (OWN, method):
            label = bench.manifest.rows(SPLIT)["label"].to_numpy()
            some = (metric == "overall") | (strata(bench.manifest.counts().numpy())[label] == metric)
            other = found[world, number, OWN, reference][1]
            a, b = ((one == label)[:, some] for one in (predicted, other))
            both = paired_interval(a, b, label[some]).half_width
            # Classes have equally many test images: a mean over images is one over classes.
            seeds = interval(100 * (a.mean(1) - b.mean(1))).half_width
            each.append((both**2 - seeds**2) / ndtri(0.975) ** 2)
    return float(np.sqrt(max(np.mean(each), 0.0)))


def measure(root: Path) -> None:
    """Run by params.yaml and write reports/variance: rows.csv and components.csv. Long; resumes.

    Raises UserError on a processor whose own rounding is the portable one.
    """
    # Pinned is the process that is started below; the one that starts it finds what it trains.
    pinned = os.environ.get(PORTABLE) == "1"
    if not pinned and torch.backends.cpu.get_cpu_capability() != "AVX512":
        raise UserError("variance: this processor rounds as the portable mode does: take one with AVX-512.")
    everything = params.load(root / "params.yaml")
    point = everything.mini.imagenet_lt
    generator = Generator.load(paths.from_root(point.sampling.generator), point.sampling.n_steps)
    of = partial(runs, everything.variance, point, generator, root / WORK)
    if pinned:
        of(PINNED)
        return
    found = of(OWN)
    again = [sys.executable, "-m", "fgsynth", "variance"]
    subprocess.run(again, check=True, env={**os.environ, PORTABLE: "1"})
    found |= of(PINNED)
    rows = accuracies(found)
    tables = {"rows": (rows, "%.6g"), "components": (tabulate(rows, found), "%.4g")}
    for name, (one, digits) in tables.items():
        text = one.to_csv(index=False, float_format=digits)
        paths.write_text(root / "reports" / "variance" / f"{name}.csv", text)

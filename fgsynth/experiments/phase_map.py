"""The map: where feedback gains on the same sampler unguided, one thing varied at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy

from fgsynth.config import params
from fgsynth.config.schema import LongTail, Sampling
from fgsynth.data import mini
from fgsynth.data.images import from_uint8
from fgsynth.data.sources import Source
from fgsynth.evaluate.metrics import interval
from fgsynth.evaluate.scores import contents, evaluate
from fgsynth.experiments.early_generator import early
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.generator import Generator
from fgsynth.generate.plan import Method
from fgsynth.miniworld import judge
from fgsynth.models.networks import Classifier
from fgsynth.pretrain.files import JUDGE
from fgsynth.train.recipe import Recipe
from fgsynth.train.train import predict
from fgsynth.utils import paths
from fgsynth.utils.progress import progress

WORK = Path("data/work/map")
Guide = Literal["ERM", "calibrated ERM", "balanced"]


@dataclass(frozen=True)
class Point:
    """A setting. modes: shares of appearances; real: largest and smallest class; generator: its name."""

    factor: str
    value: str
    modes: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1)
    real: tuple[int, int] = (200, 4)
    scale: float = 0.03
    steps: tuple[int, int | None] = (0, None)
    dropout: float = 0.5
    guide: Guide = "ERM"
    exact: bool = False
    generator: str = "late"


BASE = Point("base", "base")


def points() -> list[Point]:
    """One thing at a time is moved away from the base."""

    def moved(factor: str, **values: dict[str, Any]) -> list[Point]:
        """Points of a factor, each with changes from the base by its name."""
        return [replace(BASE, factor=factor, value=value, **change) for value, change in values.items()]

    def each(factor: str, key: str, values: list[Any], name: Callable[[Any], str] = str) -> list[Point]:
        """Points of a factor that is one field."""
        return moved(factor, **{name(v): {key: v} for v in values})

    tails = {"1 mode": (1.0,), "90 5 3 2 %": (0.9, 0.05, 0.03, 0.02), "65 20 10 5 %": (0.65, 0.2, 0.1, 0.05)}
    return [
        BASE,
        *moved("appearance modes", **{name: {"modes": tail} for name, tail in tails.items()}),
        *moved("real images", **{"400 to 12": {"real": (400, 12)}}),
        *each("feedback scale", "scale", [0.01, 0.1]),
        *moved("feedback scale", **{"0.1, first half": {"scale": 0.1, "steps": (0, 6)}}),
        *moved("feedback scale", **{"0.1, second half": {"scale": 0.1, "steps": (6, None)}}),
        *each("dropout", "dropout", [0.0]),
        *each("guide", "guide", ["calibrated ERM", "balanced"]),
        *each("gradient", "exact", [True], lambda _: "exact"),
        *each("generator", "generator", ["early"]),
    ]


@dataclass(frozen=True)
class Setup:
    """Settings that all points share: generators by name, judge, sampling, the classifier's recipe."""

    generators: dict[str, Generator]
    judge: Classifier
    sampling: Sampling
    recipe: Recipe
    worlds: int
    seeds: int
    work: Path
    strata: tuple[int, int, int] = (8, 9, 7)
    n_val: int = 150


class Tempered(Classifier):
    """A classifier with its logits divided by a temperature (Guo et al. 2017)."""

    temperature: Tensor

    def __init__(self, network: Classifier, temperature: float) -> None:
        super().__init__(network.network, network.prepare)
        self.register_buffer("temperature", torch.tensor(temperature))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: images (n, 3, h, w)."""
        logits, embedding = super().forward(x)
        return logits / self.temperature, embedding


def calibrated(network: Classifier, val: Source) -> Classifier:
    """Temperature scaling: the temperature of least cross entropy on validation images."""
    logits = predict(network, val)
    best = minimize_scalar(
        lambda t: cross_entropy(logits / np.exp(t), val.label).item(), bounds=(-2, 3), method="bounded"
    )
    return Tempered(network, float(np.exp(best.x))).eval().requires_grad_(False)


def run(setup: Setup) -> pd.DataFrame:
    """Sample and train at every point, world and seed: a row for each method. Long; resumes.

    Columns: factor, value, world, seed, arm, then accuracies on validation, in percent, and what the judge
    counts in the synthetic set. Arms: "unguided", "guided"; at some points "real" (no synthetic set), "text",
    "text and image".
    """
    cells = [(point, world) for point in points() for world in range(setup.worlds)]
    return pd.DataFrame([row for cell in progress(cells, "map") for row in _rows(setup, *cell)])


def draw_map(root: Path) -> None:
    """Run the map by params.yaml and write reports/map: rows.csv, gains.csv and modes.csv.

    A stopped run goes on where it was. Raises UserError where the early generator of another recipe is there.
    """
    everything = params.load(root / "params.yaml")
    settings, conditioning, work = everything.feedback_map, everything.pretrain.conditioning, root / WORK
    s = settings.sampling
    late = Generator.load(paths.from_root(s.generator), s.n_steps)
    generators = {
        "late": late,
        "early": early(late, settings.early, conditioning, settings.early_images, work),
    }
    reader = judge.load(root / s.generator / JUDGE)
    recipe = Recipe.of(settings.training)
    rows = run(Setup(generators, reader, s, recipe, settings.worlds, settings.seeds, work))
    lost = lost_to_rare_modes(rows).rename_axis("modes").reset_index(name="lost")
    tables = {"rows": (rows, "%.5g"), "gains": (gains(rows), "%.4g"), "modes": (lost, "%.4g")}
    for name, (table, digits) in tables.items():
        text = table.to_csv(index=False, float_format=digits)
        paths.write_text(root / "reports" / "map" / f"{name}.csv", text)


ACCURACIES = ("overall", "many", "medium", "few,", "balanced")
"""Prefixes of the metrics of classifiers; "few" alone is one, "few recognised" is of a set."""


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """Guided minus unguided over paired worlds and seeds: factor, value, metric, mean, low, high, n.

    What a point does not have, such as rare appearances where there is one, is left out. What is counted in
    a synthetic set is the same for all seeds of a world: it has one difference per world.
    """
    key = ["factor", "value", "world", "seed"]
    metrics = [c for c in rows.columns if c not in (*key, "arm")]
    arms = {arm: part.set_index(key)[metrics] for arm, part in rows.groupby("arm")}
    differences = (arms["guided"] - arms["unguided"]).reset_index()
    out = []
    for (factor, value), part in differences.groupby(["factor", "value"], sort=False):
        for metric in metrics:
            paired = (
                part if (metric == "few" or metric.startswith(ACCURACIES)) else part.drop_duplicates("world")
            )
            present = paired[metric].dropna()
            if len(present):
                d = interval(present.to_numpy(float))
                out.append((factor, value, metric, d.mean, d.low, d.high, d.n))
    return pd.DataFrame(out, columns=["factor", "value", "metric", "mean", "low", "high", "n"])


def lost_to_rare_modes(rows: pd.DataFrame) -> pd.Series:
    """By tail of appearances: what Few loses as some appearances are rare, on validation, in points.

    The rule for the world of the experiments, laid down before a test set was drawn: the tail where this
    is largest, as there the papers' premise holds best: what a class lacks is its rare appearances. Feedback
    has no part in it.
    """
    mine = rows[(rows["arm"] == "real") & rows["factor"].isin(["base", "appearance modes"])]
    loss = mine["few, common"] - mine["few"]
    return loss.groupby(mine["value"], sort=False).mean()


def _rows(setup: Setup, point: Point, world: int) -> Iterator[dict[str, Any]]:
    exp = _experiment(setup, point, world)
    for arm, method in _arms(point):
        made = exp.synthetic(method) if method else None
        counted = {}
        if made:
            x = made.at(np.arange(len(made.index)))
            counted = contents(made.index, judge.read(setup.judge, from_uint8(x)), exp.bench)
        for seed in range(setup.seeds):
            folder = exp.trainings.folder(setup.recipe, seed, made)
            network = exp.trainings.train(setup.recipe, seed, made).network
            scores = evaluate(exp.bench, exp.trainings.predicted(network, "val", folder), "val")
            modes = {f"few, {k}": scores["modes"][f"few, {k}"] for k in ("balanced", "common", "rare")}
            accuracy = {k: scores[k] for k in ("overall", "many", "medium", "few")}
            yield {
                "factor": point.factor, "value": point.value, "world": world, "seed": seed, "arm": arm,
                **accuracy, "balanced": scores["modes"]["balanced"], **modes, **counted,
            }  # fmt: skip


def _arms(point: Point) -> list[tuple[str, Method | None]]:
    unguided = Method(dropout=point.dropout)
    arms: list[tuple[str, Method | None]] = [("unguided", unguided)]
    if point.factor in ("base", "appearance modes"):
        arms.append(("real", None))
    if point == BASE:
        arms += [("text", Method(image=False)), ("text and image", Method())]
    return [*arms, ("guided", replace(unguided, criteria=("entropy",), scale=point.scale))]


def _experiment(setup: Setup, point: Point, world: int) -> Experiment:
    """The experiment of a point, whose guide is trained by the point's own recipe."""
    n_max, n_min = point.real
    tail = LongTail(
        n_max=n_max,
        n_min=n_min,
        strata=setup.strata,
        n_val=setup.n_val,
        n_test=1,
        modes=point.modes,
        seed=world,
    )
    start, stop = point.steps
    change = {"start": start, "stop": stop, "through_network": point.exact}
    sampling = setup.sampling.model_copy(update=change)
    balanced = 1.0 if point.guide == "balanced" else 0.0
    exp = Experiment(
        mini.imagenet_lt(tail), setup.generators[point.generator], sampling,
        replace(setup.recipe, balanced=balanced), setup.work / point.generator, world,
    )  # fmt: skip
    guide = exp.trainings.train(exp.recipe, 1_000_000 + world).network
    if point.guide == "calibrated ERM":
        guide = calibrated(guide, exp.trainings.images("val"))
    return replace(exp, guided_by=guide)

"""Estimates: what synthetic sets and classifiers cost before they are made: evaluations, GPU hours, disk."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from fgsynth.config.checked import checked
from fgsynth.config.schema import Classification, Count, NotNegative, Sampling, validated
from fgsynth.cost import calibrate as calibration
from fgsynth.cost.calibrate import Calibration, calibrate, calibrate_training
from fgsynth.data.registry import train_counts
from fgsynth.experiments.build import generator_of, planned
from fgsynth.generate.compose import guidance_of
from fgsynth.generate.methods import sets, trainings
from fgsynth.generate.pipelines import folds_cfg
from fgsynth.generate.plan import Method, missing_per_group
from fgsynth.miniworld.render import SIDE
from fgsynth.models.networks import create
from fgsynth.train.recipe import Recipe
from fgsynth.utils import paths
from fgsynth.utils.cache import fingerprint
from fgsynth.utils.errors import UserError

KEPT = "calibration.json"
"""In the work folder: what was measured, by what it was measured for."""


@dataclass(frozen=True)
class Evaluations:
    """Images that pass each network, forwards and, for gradients, backwards; two in a batch are two.

    What checkpointing computes again on the way back is not counted, nor are the encoders of the conditions.
    """

    denoiser: int = 0
    denoiser_back: int = 0
    decoder: int = 0
    decoder_back: int = 0
    classifier: int = 0
    classifier_back: int = 0


@dataclass(frozen=True)
class Estimate:
    """What a synthetic set takes; seconds of one GPU and bytes are NaN where nothing is known of them."""

    images: int
    shards: int
    per_shard: int
    evaluations: Evaluations
    seconds: float
    bytes: float

    @property
    def gpu_hours(self) -> float:
        """Hours on one GPU."""
        return self.seconds / 3600

    def hours(self, gpus: int) -> float:
        """Hours on several GPUs, each of which makes whole shards, one after the other."""
        largest = min(self.per_shard, self.images)
        return min(math.ceil(self.shards / gpus) * largest / self.images, 1.0) * self.gpu_hours


def evaluations(n: int, sampling: Sampling, method: Method) -> Evaluations:
    """Network evaluations of n images: steps x 2 under classifier-free guidance (FG eq. 2), and feedback.

    Once a step where a generator that is here takes its scale as a number (`pipelines.folds_cfg`).
    Every guided step decodes its prediction, classifies it and goes back (FG eq. 3 and 3.1.2); the finished
    image is decoded and, under feedback, classified once more.
    """
    twice = (sampling.cfg if method.image else sampling.cfg_text) > 1
    halves = 2 if twice and not folds_cfg(paths.from_root(sampling.generator)) else 1
    guidance = guidance_of(sampling, method.scale if method.criteria else 0.0)
    guided = len(guidance.guided_steps(sampling.n_steps))
    return Evaluations(
        denoiser=n * sampling.n_steps * halves,
        denoiser_back=n * guided * halves if sampling.through_network else 0,
        decoder=n * (guided + 1),
        decoder_back=n * guided,
        classifier=n * (guided + 1) if method.criteria else 0,
        classifier_back=n * guided,
    )


def estimate(
    n_images: int,
    sampling: Sampling,
    method: Method = Method(),  # noqa: B008, frozen
    cost: Calibration | None = None,
) -> Estimate:
    """What n images, at least 1, of a method take; hours and bytes are NaN where it was not calibrated."""
    seconds, size = (n_images * cost.best, n_images * cost.bytes) if cost else (math.nan, math.nan)
    shards, count = -(-n_images // sampling.per_shard), evaluations(n_images, sampling, method)
    return Estimate(n_images, shards, sampling.per_shard, count, seconds, size)


@dataclass(frozen=True)
class Stage:
    """A stage at a scale, or its part on one benchmark, and where its calibrations are kept.

    counts: training images by class and context, (c, contexts); side: of what classifiers see.
    """

    name: str
    counts: Tensor
    side: int
    sampling: Sampling
    recipe: Recipe
    sets: Mapping[str, tuple[Method, float]]
    trainings: Mapping[bool, int]
    kept: Path

    def key(self, method: Method | None) -> str:
        """What a calibration depends on; None is training, methods differ by image condition and feedback."""
        if method is None:
            return fingerprint((), "training", vars(self.recipe))
        s = self.sampling.model_dump(exclude={"fill_to", "per_shard", "scales", "batch"})
        guide = self.recipe.network if method.criteria else ""
        return fingerprint((), "synthesis", s, method.image, guide)

    @property
    def kinds(self) -> dict[str, Method | None]:
        """What is calibrated, by key: a method of each kind, and training."""
        return {**{self.key(method): method for method, _ in self.sets.values()}, self.key(None): None}


@checked
def run(
    stage: str,
    scale: str | None = None,
    *,
    gpus: Count = 1,
    price: NotNegative | None = None,
    seconds: NotNegative = 0.0,
    half: bool = False,
) -> str:
    """A stage's synthetic sets and classifiers as a short table, at the scale of params.yaml or another.

    seconds: for a calibration on this machine, which is kept for later calls; 0 calibrates nothing. half: its
    denoiser in float16. price: of a GPU for an hour. Raises UserError for a stage or scale without sets.
    """
    chosen = _stage(stage, scale)
    known = calibration.read(chosen.kept)
    if half and not seconds:
        raise UserError("half has no effect where nothing is calibrated: add --calibrate, or leave it out.")
    if seconds:
        known |= _calibrated(chosen, chosen.kinds.keys(), seconds, half)
        calibration.write(chosen.kept, known)
    return table(chosen, known, gpus, price)


def total(stage: Stage, seconds: float) -> tuple[int, int, float]:
    """Images, updates and hours on this machine of a stage's sets and classifiers together.

    seconds: for a calibration of what was not calibrated here before.
    """
    known = calibration.read(stage.kept)
    if missing := stage.kinds.keys() - known.keys():
        known |= _calibrated(stage, missing, seconds)
        calibration.write(stage.kept, known)
    made, real = _estimates(stage, known).values(), int(stage.counts.sum())
    trained = [_training(stage, known, real, synthetic) for synthetic in stage.trainings]
    hours = sum(one.gpu_hours for one in made) + sum(took for *_, took in trained)
    return sum(one.images for one in made), sum(updates for updates, *_ in trained), hours


def _stage(name: str, scale: str | None) -> Stage:
    given = planned(name).at(scale)
    if given.scale == "smoke":
        raise UserError("No estimate at scale 'smoke', which lives in the notebooks' own cells.")
    block = given.overrides(name)
    made = sets(name, block, validated(Sampling, block["sampling"], "sampling"))
    return part(f"{name} at scale {given.scale}", name, block, made, trainings(name, block, made))


def part(
    title: str,
    benchmark: str,
    block: Mapping[str, Any],
    made: Mapping[str, tuple[Method, float]],
    trained: Mapping[bool, int],
) -> Stage:
    """What a stage does on a benchmark; block: its world, sampling, training and work; as Stage has them."""
    sampling: Sampling = validated(Sampling, block["sampling"], "sampling")
    recipe = Recipe.of(validated(Classification, block["training"], "training"))
    counts, kept = train_counts(benchmark, block["world"]), paths.place(block["work"]) / KEPT
    return Stage(title, counts, recipe.side or SIDE, sampling, recipe, made, trained, kept)


def _calibrated(
    stage: Stage, wanted: Collection[str], seconds: float, half: bool = False
) -> dict[str, Calibration]:
    """Each wanted kind in an equal part of the time."""
    s = stage.sampling.model_copy(update={"dtype": "float16"}) if half else stage.sampling
    model, n_classes, each = generator_of(s), len(stage.counts), seconds / len(wanted)
    guide, plain = create(stage.recipe.network, n_classes), replace(stage.recipe, pretrained=False)
    return {
        key: calibrate_training(plain, n_classes, stage.side, seconds=each)
        if method is None
        else calibrate(model, s, method, guide, side=stage.side, seconds=each)
        for key, method in stage.kinds.items()
        if key in wanted
    }


def _estimates(stage: Stage, known: Mapping[str, Calibration]) -> dict[str, Estimate]:
    """What each set takes, by name."""
    return {
        name: estimate(
            int(missing_per_group(stage.counts, stage.sampling.fill_to, whole).sum()),
            stage.sampling,
            method,
            known.get(stage.key(method)),
        )
        for name, (method, whole) in stage.sets.items()
    }


def table(stage: Stage, known: Mapping[str, Calibration], gpus: int, price: float | None) -> str:
    """The table of `run`: a row per set, their sum, classifiers, and what is known of the machine."""
    made = _estimates(stage, known)
    rows = pd.DataFrame({name: _row(one) for name, one in made.items()}).T
    rows.loc[f"{len(made)} sets"] = rows.sum(skipna=False)
    numbers: dict[str, Callable[[float], str]] = dict.fromkeys(map(str, rows), "{:,.0f}".format)
    numbers |= dict.fromkeys(("GPU hours", "GB"), _short)
    real = int(stage.counts.sum())
    lines = [
        f"{stage.name}: {len(stage.counts):,} classes, {real:,} real images",
        rows.to_string(formatters=numbers, na_rep="-"),
        *(_classifiers(stage, known, real, synthetic) for synthetic in (False, True)),
        _machine(stage, known, sum(one.hours(gpus) for one in made.values()), gpus, price),
    ]
    return "\n".join(lines) + "\n"


def _row(one: Estimate) -> dict[str, float]:
    e = one.evaluations
    counted = {"denoiser": e.denoiser, "its gradients": e.denoiser_back, "decoder": e.decoder}
    sizes = {"GPU hours": one.gpu_hours, "GB": one.bytes / 1e9}
    return {"images": one.images, "shards": one.shards, **counted, "classifier": e.classifier, **sizes}


def _training(
    stage: Stage, known: Mapping[str, Calibration], n_real: int, synthetic: bool
) -> tuple[int, int, float]:
    """Updates, images and hours of all trainings of a kind; hours are NaN without a calibration."""
    each = stage.recipe.epochs * stage.recipe.updates(n_real, synthetic)
    updates, cost = stage.trainings[synthetic] * each, known.get(stage.key(None))
    images = updates * stage.recipe.batch
    return updates, images, images * cost.best / 3600 if cost else math.nan


def _classifiers(stage: Stage, known: Mapping[str, Calibration], n_real: int, synthetic: bool) -> str:
    """Number, updates, images and hours of the trainings with synthetic images or without."""
    n, (updates, images, took) = stage.trainings[synthetic], _training(stage, known, n_real, synthetic)
    what = "real and synthetic" if synthetic else "real"
    hours = "" if math.isnan(took) else f", {_short(took)} GPU hours"
    return f"{n} classifiers on {what} images: {updates // n:,} updates each, {images:,} images{hours}"


def _machine(
    stage: Stage, known: Mapping[str, Calibration], hours: float, gpus: int, price: float | None
) -> str:
    if math.isnan(hours):
        return "hours and disk (-) are not known: add --calibrate 60 on a machine like those that shall work"
    used = [known[stage.key(method)] for method, _ in stage.sets.values()]
    cost = "" if price is None else f", for {hours * gpus * price:,.2f} at {price:g} a GPU hour"
    batches = ", ".join(str(b) for b in sorted({one.batch for one in used}))
    devices = "; ".join(sorted({one.device for one in used}))
    return (
        f"all sets on {gpus} GPUs in {_short(hours)} hours{cost}; measured on {devices}, batches of {batches}"
    )


def _short(value: float) -> str:
    """Three digits, however small; a dash for what is not known."""
    return "-" if math.isnan(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

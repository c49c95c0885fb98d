"""Estimates: what synthetic sets and classifiers cost before they are made: evaluations, GPU hours, disk."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from torch import Tensor

from fgsynth.config.checked import checked
from fgsynth.config.schema import Classification, Count, NotNegative, Sampling, validated
from fgsynth.cost import calibrate as calibration
from fgsynth.cost.calibrate import Calibration, calibrate, calibrate_training
from fgsynth.data.registry import train_counts
from fgsynth.experiments.build import generator_of, planned
from fgsynth.generate.compose import guidance_of
from fgsynth.generate.methods import sets
from fgsynth.generate.plan import Method, missing_per_group
from fgsynth.miniworld.render import SIDE
from fgsynth.models.networks import create
from fgsynth.train.recipe import Recipe
from fgsynth.utils import paths
from fgsynth.utils.cache import fingerprint
from fgsynth.utils.errors import UserError

SCALES = ("mini", "full", "paper")
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

    Every guided step decodes its prediction, classifies it and goes back (FG eq. 3 and 3.1.2); the finished
    image is decoded and, under feedback, classified once more.
    """
    halves = 2 if (sampling.cfg if method.image else sampling.cfg_text) > 1 else 1
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
class _Stage:
    """A stage at a scale, and where its calibrations are kept.

    counts: training images by class and context, (c, contexts); side: of what classifiers see.
    """

    name: str
    counts: Tensor
    side: int
    sampling: Sampling
    recipe: Recipe
    sets: Mapping[str, tuple[Method, float]]
    kept: Path

    def key(self, method: Method | None) -> str:
        """What a calibration depends on; None is training, methods differ by image condition and feedback."""
        if method is None:
            return fingerprint((), "training", vars(self.recipe))
        s = self.sampling.model_dump(exclude={"fill_to", "per_shard", "scales", "batch"})
        guide = self.recipe.network if method.criteria else ""
        return fingerprint((), "synthesis", s, method.image, guide)


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
        known |= _calibrated(chosen, seconds, half)
        calibration.write(chosen.kept, known)
    return table(chosen, known, gpus, price)


def _stage(name: str, scale: str | None) -> _Stage:
    given = planned(name)
    scale = scale or given.scale
    if scale not in SCALES:
        raise UserError(f"No estimate at scale '{scale}': choose {' or '.join(map(repr, SCALES))}.")
    block = given.model_copy(update={"scale": scale}).overrides(name)
    sampling: Sampling = validated(Sampling, block["sampling"], "sampling")
    recipe = Recipe.of(validated(Classification, block["training"], "training"))
    counts, kept = train_counts(name, block["world"]), paths.place(block["work"]) / KEPT
    made = sets(name, block, sampling)
    return _Stage(f"{name} at scale {scale}", counts, recipe.side or SIDE, sampling, recipe, made, kept)


def _calibrated(stage: _Stage, seconds: float, half: bool) -> dict[str, Calibration]:
    """Each kind of method, and training, in an equal part of the time."""
    s = stage.sampling.model_copy(update={"dtype": "float16"}) if half else stage.sampling
    model = generator_of(s)
    kinds = {stage.key(method): method for method, _ in stage.sets.values()}
    each = seconds / (len(kinds) + 1)
    guide = create(stage.recipe.network, len(stage.counts))
    made = {
        key: calibrate(model, s, method, guide, side=stage.side, seconds=each)
        for key, method in kinds.items()
    }
    plain = replace(stage.recipe, pretrained=False)
    made[stage.key(None)] = calibrate_training(plain, len(stage.counts), stage.side, seconds=each)
    return made


def table(stage: _Stage, known: Mapping[str, Calibration], gpus: int, price: float | None) -> str:
    """The table of `run`: a row per set, their sum, classifiers, and what is known of the machine."""
    made = {
        name: estimate(
            int(missing_per_group(stage.counts, stage.sampling.fill_to, whole).sum()),
            stage.sampling,
            method,
            known.get(stage.key(method)),
        )
        for name, (method, whole) in stage.sets.items()
    }
    rows = pd.DataFrame({name: _row(one) for name, one in made.items()}).T
    rows.loc[f"{len(made)} sets"] = rows.sum(skipna=False)
    numbers: dict[str, Callable[[float], str]] = dict.fromkeys(map(str, rows), "{:,.0f}".format)
    numbers |= dict.fromkeys(("GPU hours", "GB"), _short)
    real = int(stage.counts.sum())
    lines = [
        f"{stage.name}: {len(stage.counts):,} classes, {real:,} real images",
        rows.to_string(formatters=numbers, na_rep="-"),
        *(_classifier(stage, known, real, synthetic) for synthetic in (False, True)),
        _machine(stage, known, sum(one.hours(gpus) for one in made.values()), gpus, price),
    ]
    return "\n".join(lines) + "\n"


def _row(one: Estimate) -> dict[str, float]:
    e = one.evaluations
    counted = {"denoiser": e.denoiser, "its gradients": e.denoiser_back, "decoder": e.decoder}
    sizes = {"GPU hours": one.gpu_hours, "GB": one.bytes / 1e9}
    return {"images": one.images, "shards": one.shards, **counted, "classifier": e.classifier, **sizes}


def _classifier(stage: _Stage, known: Mapping[str, Calibration], n_real: int, synthetic: bool) -> str:
    """Updates, images and hours of one training, with synthetic images or without."""
    updates, cost = stage.recipe.epochs * stage.recipe.updates(n_real, synthetic), known.get(stage.key(None))
    images = updates * stage.recipe.batch
    what = "real and synthetic" if synthetic else "real"
    hours = f", {_short(images * cost.best / 3600)} GPU hours" if cost else ""
    return f"a classifier on {what} images: {updates:,} updates, {images:,} images{hours}"


def _machine(
    stage: _Stage, known: Mapping[str, Calibration], hours: float, gpus: int, price: float | None
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

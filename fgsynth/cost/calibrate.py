"""Calibration in a minute: seconds per image on the card at hand, for synthesis and for training."""

import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fgsynth.config.schema import Sampling
from fgsynth.cost.meter import hardware
from fgsynth.data import tars
from fgsynth.data.sources import Images
from fgsynth.generate.compose import guidance_of
from fgsynth.generate.dropout import Dropout
from fgsynth.generate.generator import Generator
from fgsynth.generate.plan import Method
from fgsynth.generate.resize import at_resolution, resized
from fgsynth.generate.synthesise import Feedback, Plan, synthesise
from fgsynth.guidance.criteria import entropy
from fgsynth.models.networks import Classifier
from fgsynth.train.recipe import Recipe
from fgsynth.train.train import train
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import read_json, write_text
from fgsynth.utils.seeds import generator as seeded

LARGEST = 256
"""The largest batch that is tried."""


@dataclass(frozen=True)
class Calibration:
    """Seconds per image by batch, as measured on a device; bytes per image in a tar (0: not stored)."""

    device: str
    seconds: dict[int, float]
    bytes: float = 0.0

    @property
    def batch(self) -> int:
        """The fastest batch."""
        return min(self.seconds, key=self.seconds.__getitem__)

    @property
    def best(self) -> float:
        """Seconds per image in the fastest batch."""
        return self.seconds[self.batch]


def calibrate(
    generator: Generator,
    sampling: Sampling,
    method: Method = Method(),  # noqa: B008, frozen
    classifier: Classifier | None = None,
    *,
    side: int | None = None,
    seconds: float = 60.0,
) -> Calibration:
    """Time the synthesis of a method in batches of 1, 2, 4, ... until `seconds` or the memory are used up.

    All that an image costs is in it: condition, sampling, guidance, PNG. classifier: the guide, or an
    untrained network as large, that takes images at `side`; whatever the criterion, entropy is timed. Of
    every batch the second run counts. Raises UserError where not one image fits into memory, and for
    feedback without a classifier.
    """
    feedback = _feedback(generator, sampling, method, classifier, side)
    sizes: list[int] = []

    def trial(batch: int) -> None:
        """Make a batch and note its size in a tar."""
        images = _images(generator, sampling, method, feedback, batch)
        file, tar = io.BytesIO(), Path("calibration.tar")
        for i, image in enumerate(images):
            tars.append(file, tar, str(i), image)
        sizes.append(file.tell() // batch)

    return Calibration(hardware(generator.device), _growing(trial, seconds), float(np.mean(sizes)))


def calibrate_training(recipe: Recipe, n_classes: int, side: int, *, seconds: float = 60.0) -> Calibration:
    """Time updates of a recipe on noise of `side` pixels, twice as many each time until `seconds` are over.

    Reading and augmenting images is not in it: give training enough workers to do that meanwhile.
    Raises UserError as `fgsynth.train.train.train`.
    """
    noise = torch.randint(256, (n_classes, side, side, 3), dtype=torch.uint8, generator=seeded("calibration"))
    real = Images(noise, torch.arange(n_classes))
    n, begun = 1, perf_counter()
    while True:
        timed = replace(recipe, epochs=1, updates_per_epoch=n, select="last")
        started = perf_counter()
        row = train(real, None, n_classes, timed, 0).history.iloc[-1]
        each = float(row["seconds"] - row["data_seconds"]) / (n * recipe.batch)
        if perf_counter() - begun + 2 * (perf_counter() - started) > seconds:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            return Calibration(hardware(device), {recipe.batch: each})
        n *= 2


def read(path: Path) -> dict[str, Calibration]:
    """Calibrations that `write` kept, by key; none where there is no such file."""
    if not path.exists():
        return {}
    kept = read_json(path, "remove it and calibrate again")
    try:
        return {
            key: Calibration(**{**one, "seconds": {int(b): s for b, s in one["seconds"].items()}})
            for key, one in kept.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: remove it and calibrate again.") from error


def write(path: Path, kept: dict[str, Calibration]) -> None:
    """Keep calibrations by key."""
    write_text(path, json.dumps({key: asdict(one) for key, one in kept.items()}, indent=1))


def _feedback(
    generator: Generator, sampling: Sampling, method: Method, classifier: Classifier | None, side: int | None
) -> Feedback | None:
    if not method.criteria:
        return None
    if classifier is None:
        raise UserError(f"A method guided by {method.criteria[0]} needs a classifier to be calibrated with.")
    classifier = classifier.eval().requires_grad_(False).to(generator.device)
    drawn = generator.side
    guide = at_resolution(classifier, side or drawn)
    n_classes = guide(torch.zeros(1, 3, drawn, drawn, device=generator.device))[0].shape[1]
    return Feedback(guide, {"entropy": entropy}, n_classes, guidance_of(sampling, method.scale))


def _images(
    generator: Generator, sampling: Sampling, method: Method, feedback: Feedback | None, batch: int
) -> NDArray[np.uint8]:
    """A batch as the engine makes it, of one prompt and a grey condition."""
    seeds = list(range(batch))
    if method.image:
        grey = [Image.new("RGB", (256, 256), "grey")] * batch
        image = generator.embed_image(grey, seeds, Dropout(method.dropout), sampling.noise_level)
    else:
        image = generator.no_image(batch)
    plan = Plan(["an image"] * batch, image, torch.zeros(batch, dtype=torch.long), seeds)
    cfg = sampling.cfg if method.image else sampling.cfg_text
    return resized(synthesise(generator, plan, cfg, feedback, batch=batch).images, sampling.side).numpy()


def _growing(
    trial: Callable[[int], None], seconds: float, clock: Callable[[], float] = perf_counter
) -> dict[int, float]:
    """Seconds per image of batches that double; the next one would take twice as long, twice over."""
    measured: dict[int, float] = {}
    batch, begun = 1, clock()
    while batch <= LARGEST:
        try:
            trial(batch)
            started = clock()
            trial(batch)
        except UserError:
            # A batch that does not fit into memory ends it, but for the first.
            if not measured:
                raise
            break
        took = clock() - started
        measured[batch] = took / batch
        if clock() - begun + 4 * took > seconds:
            break
        batch *= 2
    return measured

"""Benchmarks in feature space by name, one draw per seed."""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from fgsynth.config.schema import LatentSets, LongTail, OfficialSets
from fgsynth.latent.features.cifar import cifar100_lt
from fgsynth.latent.features.digits import (
    digits,
    digits_lt,
    long_tail_counts,
    long_tail_split,
    random_convolution_features,
)
from fgsynth.latent.features.extractors import Extractor, extractor
from fgsynth.latent.features.feature_set import FeatureSet
from fgsynth.latent.features.sets import LONG_TAILED, ImageSet, featurise, mini_long_tail, places_lt
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import from_root, place
from fgsynth.utils.seeds import generator

DIGITS, CIFAR, PLACES = "digits_lt", "cifar100_lt", "places365_lt"
NOISE = ", noise "
"""Before the standard deviation of noise on features, in that of their entries: a weaker extractor."""
FEATURES = "_features"
"""Ends the names of the mini world's benchmarks as features."""


@dataclass(frozen=True)
class Drawn:
    """One draw of a benchmark: `choosing` has validation, `final` (if another) is what settings are used on.

    images: row by row those of the features, where there is an extractor.
    """

    choosing: FeatureSet
    final: FeatureSet | None = None
    images: ImageSet | None = None


def load(name: str, seed: int, settings: LatentSets, work: str) -> Drawn:
    """Load one draw of a benchmark in feature space.

    CIFAR-100-LT has no image to spare in its largest class: settings are chosen on a draw with validation
    images and then used on the usual one. name: "digits_lt"; "imagenet_lt_features" or "places_lt_features"
    of the mini world; "cifar100_lt:100" with its imbalance; "places365_lt"; any of them `degraded` with
    ", noise 2" behind it. The seed draws which class is rare and which images there are; features are stored
    below `work`. Raises UserError for an unknown name, and for data that are not on disk.
    """
    clean, noise, level = name.partition(NOISE)
    if noise and level.replace(".", "", 1).isdecimal():
        drawn = load(clean, seed, settings, work)
        spoilt = [degraded(one, float(level), seed) for one in (drawn.choosing, drawn.final) if one]
        return replace(drawn, choosing=spoilt[0], final=spoilt[1] if drawn.final else None)
    kind, _, value = name.partition(":")
    folder, short = place(work) / "features", name.removesuffix(FEATURES)
    if name == DIGITS:
        return Drawn(_digits(settings, seed))
    if short in LONG_TAILED and short != name:
        world: LongTail = settings.worlds[short].model_copy(update={"seed": seed})
        images = mini_long_tail(short, world)
        return Drawn(featurise(loaded(settings.extractor), images, folder, batch=256), None, images)
    if name != PLACES and not (kind == CIFAR and value.isdecimal()):
        known = [DIGITS, *(n + FEATURES for n in LONG_TAILED), f"{CIFAR}:100", PLACES]
        raise UserError(f"No benchmark of features '{name}': choose one of {', '.join(known)}.")
    sets = [official(name, seed, settings, settings.cifar100_val)]
    sets += [official(name, seed, settings)] if kind == CIFAR else []
    choosing, *final = (featurise(loaded(settings.extractor), s, folder) for s in sets)
    return Drawn(choosing, final[0] if final else None, sets[0])


def official(name: str, seed: int, where: OfficialSets, n_val: int = 0) -> ImageSet:
    """Read a long-tailed set of the paper: CIFAR-100-LT by its imbalance (`cifar100_lt`), or Places-LT.

    Raises UserError for another name, and for files that are missing or altered.
    """
    kind, _, value = name.partition(":")
    if kind == CIFAR and value.isdecimal():
        return cifar100_lt(from_root(where.cifar100), int(value), n_val, seed)
    if name != PLACES:
        raise UserError(f"No official set '{name}': choose {CIFAR}:10, {CIFAR}:50, {CIFAR}:100 or {PLACES}.")
    return places_lt(from_root(where.places_lists), from_root(where.places_images))


def degraded(data: FeatureSet, level: float, seed: int) -> FeatureSet:
    """Add normal noise to features, of `level` times the standard deviation of their entries."""
    x = data.features
    noise = torch.randn(x.shape, generator=generator("degraded features", seed))
    return replace(data, features=x + level * (x - x.mean(0)).square().mean().sqrt() * noise)


def _digits(settings: LatentSets, seed: int) -> FeatureSet:
    d = settings.digits
    images, label = digits()
    counts = long_tail_counts(10, d.n_max, d.n_min)
    split = long_tail_split(label.numpy(), counts, d.n_val, d.n_test, seed)
    return digits_lt(random_convolution_features(images, d.filters), label, split)


@lru_cache(maxsize=2)
def loaded(name: str) -> Extractor:
    """Load an extractor, once per process."""
    return extractor(name)

"""Benchmarks in feature space by name, one draw per seed."""

from dataclasses import dataclass
from functools import lru_cache

from fgsynth.config.schema import LatentSets, LongTail
from fgsynth.latent.features.cifar import cifar100_lt
from fgsynth.latent.features.digits import (
    digits,
    digits_lt,
    long_tail_counts,
    long_tail_split,
    random_convolution_features,
)
from fgsynth.latent.features.extractors import Extractor, extractor
from fgsynth.latent.features.files import FeatureSet
from fgsynth.latent.features.sets import LONG_TAILED, ImageSet, featurise, mini_long_tail, places_lt
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import from_root, root

DIGITS, CIFAR, PLACES = "digits_lt", "cifar100_lt", "places365_lt"
FEATURES = "_features"
"""The mini world's benchmarks by these names are about features, others about images."""


@dataclass(frozen=True)
class Drawn:
    """A feature set that chooses settings, and the one they are then used on, if that is another.

    images: those that the features are of, row by row, where there is an extractor.
    """

    choosing: FeatureSet
    final: FeatureSet | None = None
    images: ImageSet | None = None


def load(name: str, seed: int, asked: LatentSets, work: str) -> Drawn:
    """A benchmark in feature space by name; the seed draws which class is rare and which images there are.

    "digits_lt"; "imagenet_lt_features", "places_lt_features" of the mini world; "cifar100_lt:100" with its
    imbalance; "places365_lt". Features are kept below `work`. CIFAR-100-LT has no image to spare in its
    largest class: settings are chosen on a draw with validation images and then used on the usual one.
    Raises UserError for an unknown name, and for data that are not on disk.
    """
    kind, _, value = name.partition(":")
    folder = root() / work / "features"
    if kind == DIGITS:
        return Drawn(_digits(asked, seed))
    if kind.removesuffix(FEATURES) in LONG_TAILED and kind.endswith(FEATURES):
        short = kind.removesuffix(FEATURES)
        world: LongTail = asked.worlds[short].model_copy(update={"seed": seed})
        source = mini_long_tail(short, world)
        return Drawn(featurise(eyes(asked.extractor), source, folder, batch=256), None, source)
    if kind == CIFAR and value.isdecimal():
        sets = [cifar100_lt(from_root(asked.cifar100), int(value), n, seed) for n in (asked.cifar100_val, 0)]
        choosing, final = (featurise(eyes(asked.extractor), s, folder) for s in sets)
        return Drawn(choosing, final, sets[0])
    if kind == PLACES:
        images = places_lt(from_root(asked.places_lists), from_root(asked.places_images))
        return Drawn(featurise(eyes(asked.extractor), images, folder), None, images)
    known = [DIGITS, *(n + FEATURES for n in LONG_TAILED), f"{CIFAR}:100", PLACES]
    raise UserError(f"No benchmark of features '{name}': choose one of {', '.join(known)}.")


def _digits(asked: LatentSets, seed: int) -> FeatureSet:
    d = asked.digits
    images, label = digits()
    counts = long_tail_counts(10, d.n_max, d.n_min)
    split = long_tail_split(label.numpy(), counts, d.n_val, d.n_test, seed)
    return digits_lt(random_convolution_features(images, d.filters), label, split)


@lru_cache(maxsize=2)
def eyes(name: str) -> Extractor:
    """The extractor of a name, loaded once."""
    return extractor(name)

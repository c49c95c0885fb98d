"""The benchmarks by name, of the mini world or on disk: their settings' model, and what draws them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from fgsynth.config.schema import DrawnSplit, Frozen, Groups, LongTail, OfficialLists, is_on_disk, validated
from fgsynth.data import mini
from fgsynth.data.benchmark import Benchmark
from fgsynth.data.disk import longtail, real
from fgsynth.utils.errors import UserError

WORLDS: dict[str, tuple[type[Frozen], Callable[[Any], Benchmark]]] = {
    mini.IMAGENET_LT: (LongTail, mini.imagenet_lt),
    mini.PLACES_LT: (LongTail, mini.places_lt),
    mini.NICOPP: (Groups, mini.nicopp),
}
REAL: dict[str, tuple[type[Frozen], Callable[[Any], Benchmark], Callable[[Any], Tensor]]] = {
    **{
        name: (OfficialLists, partial(real.long_tailed, one), partial(real.long_tailed_counts, one))
        for name, one in longtail.BY_NAME.items()
    },
    mini.NICOPP: (DrawnSplit, real.groups, real.group_counts),
}
"""The same names on disk, with what counts their training images without opening any."""


def draw(name: str, world: Any) -> Benchmark:
    """A benchmark from a notebook's parameters.

    Raises UserError for one that does not exist, for an unknown or mistyped key and, of a set on disk, for
    what is missing or altered.
    """
    settings, function, *_ = _of_kind(name, world)
    return function(validated(settings, world, "world"))


def train_counts(name: str, world: Any) -> Tensor:
    """Training images by class and context, (c, contexts); on disk, of the lists alone.

    Raises UserError as `draw`, but not for images that are missing.
    """
    if is_on_disk(world):
        settings, _, counted = _of_kind(name, world)
        return counted(validated(settings, world, "world"))
    m = draw(name, world).manifest
    return m.fill_counts().reshape(len(m.classes), -1)


def _of_kind(name: str, world: Any) -> tuple[Any, ...]:
    if name not in WORLDS:
        raise UserError(f"No benchmark '{name}': choose one of {', '.join(WORLDS)}.")
    return REAL[name] if is_on_disk(world) else WORLDS[name]

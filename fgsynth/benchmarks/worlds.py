"""The benchmarks by name: the model of their settings, and the function that draws them."""

from collections.abc import Callable
from typing import Any

from fgsynth.benchmarks import mini
from fgsynth.benchmarks.manifest import Benchmark
from fgsynth.errors import UserError
from fgsynth.settings import Frozen, Groups, LongTail, validated

WORLDS: dict[str, tuple[type[Frozen], Callable[[Any], Benchmark]]] = {
    mini.IMAGENET_LT: (LongTail, mini.imagenet_lt),
    mini.PLACES_LT: (LongTail, mini.places_lt),
    mini.NICOPP: (Groups, mini.nicopp),
}


def draw(name: str, world: Any) -> Benchmark:
    """A benchmark from a notebook's parameters.

    Raises UserError for one that does not exist, and for an unknown or mistyped key.
    """
    if name not in WORLDS:
        raise UserError(f"No benchmark '{name}': choose one of {', '.join(WORLDS)}.")
    settings, function = WORLDS[name]
    return function(validated(settings, world, "world"))

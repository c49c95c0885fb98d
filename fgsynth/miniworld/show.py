"""Pages of the mini world for a reader: rows of images by name, and the factors behind them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fgsynth.miniworld.kinds import CLASSES, KINDS
from fgsynth.miniworld.places import PLACES
from fgsynth.miniworld.render import render
from fgsynth.miniworld.scenery import CONTEXTS
from fgsynth.miniworld.world import BENCHMARK, WEB, Draw, sample
from fgsynth.utils.seeds import stable_seed

Rows = dict[str, NDArray[np.uint8]]


def class_factors(names: Sequence[str]) -> pd.DataFrame:
    """Twelve images of each class: the six contexts as it mostly looks, then with its rare appearances."""
    cells = [(name, context, rare) for name in names for rare in (False, True) for context in CONTEXTS]
    seeds = [stable_seed("show", *cell) for cell in cells]
    factors = sample(seeds, [c[0] for c in cells], Draw(occluded=0.0), [c[1] for c in cells])
    rare_modes = np.tile([0] * len(CONTEXTS) + [1, 1, 2, 2, 3, 3], len(names))
    return factors.assign(mode=rare_modes, row=[c[0] for c in cells])


def place_factors() -> pd.DataFrame:
    """Eight images of each place: five by day, one of each rare weather."""
    cells = [(name, i) for name in PLACES for i in range(8)]
    factors = sample([stable_seed("show", *cell) for cell in cells], [name for name, _ in cells])
    return factors.assign(mode=np.tile([0] * 5 + [1, 2, 3], len(PLACES)), row=[name for name, _ in cells])


def ambiguity_factors() -> pd.DataFrame:
    """Ten images per ambiguous name: five of the benchmark's, five of the web's under that name."""
    parts = []
    for name, kind in CLASSES.items():
        if kind.ambiguity == "none":
            continue
        share = {"homonym": 0.5, "misread": 0.8, "style": 0.0}[kind.ambiguity]
        shown = [kind.other if kind.other and i >= 5 * (1 - share) else name for i in range(5)]
        for draw, kinds in ((BENCHMARK, [name] * 5), (WEB, shown)):
            seeds = [stable_seed("show", "ambiguity", name, draw, i) for i in range(5)]
            parts.append(
                sample(seeds, [str(k) for k in kinds], draw).assign(row=f"{name} ({kind.ambiguity})")
            )
    return pd.concat(parts, ignore_index=True)


def rows(factors: pd.DataFrame) -> Rows:
    """The images of a table with a column `row`, by that name, in its order."""
    images, names = render(factors), factors["row"].to_numpy()
    return {name: images[names == name] for name in dict.fromkeys(names)}


def legend(factors: pd.DataFrame) -> pd.DataFrame:
    """What each image shows, for the figure's CSV."""
    looks = [
        f"{KINDS[k].modes[m].pattern} {KINDS[k].modes[m].colour}" if k in KINDS else ""
        for k, m in zip(factors["kind"], factors["mode"], strict=True)
    ]
    return factors[["row", "seed", "kind", "context", "mode", "style"]].assign(look=looks)

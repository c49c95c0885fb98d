"""The settings of the methods that synthesise, and the sets that each stage makes of them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fgsynth.config.names import FG, FG_COMBINED, FG_ENTROPY, TEXT, TEXT_IMAGE, UNGUIDED, variant
from fgsynth.config.schema import Sampling
from fgsynth.generate.plan import Method


def methods(sampling: Sampling) -> dict[str, Method]:
    """The methods of the papers' tables that synthesise, and dropout without feedback, by name."""
    p = sampling.dropout
    scales = {str(criterion): w for criterion, w in sampling.scales.items()}
    return {
        TEXT: Method(image=False),
        TEXT_IMAGE: Method(),
        UNGUIDED: Method(dropout=p),
        **{name: Method(True, p, (criterion,), scales[criterion]) for criterion, name in FG.items()},
        FG_COMBINED: Method(True, p, tuple(FG), scales["combined"]),
    }


def table_4_rows(sampling: Sampling) -> dict[str, Method]:
    """The methods of FG table 4 by name."""
    return {name: method for name, method in methods(sampling).items() if name != FG_COMBINED}


def sets(stage: str, block: Mapping[str, Any], sampling: Sampling) -> dict[str, tuple[Method, float]]:
    """The synthetic sets that a stage's notebook makes: method, and how many times the missing images."""
    known = methods(sampling)
    left_out = {"imagenet_lt": (), "places_lt": (FG_COMBINED,)}.get(stage, (FG_COMBINED, TEXT_IMAGE))
    made = {name: (method, 1.0) for name, method in known.items() if name not in left_out}
    most = max(block.get("amounts", (1.0,)))
    if most != 1:
        made[variant(FG_ENTROPY, "amount", most)] = (known[FG_ENTROPY], most)
    for w in block.get("coefficients", ()):
        if w not in (0.0, known[FG_ENTROPY].scale):
            made[variant(FG_ENTROPY, "w", w)] = (replace(known[FG_ENTROPY], scale=w), 1.0)
    return made


def trainings(stage: str, block: Mapping[str, Any], made: Mapping[str, Any]) -> dict[bool, int]:
    """How many classifiers a stage's notebook trains, its guide too, with synthetic images (True) or without.

    made: its sets, as `sets`. Second stages share another row's first stage and train a last layer alone.
    """
    swept = sum(a not in (0.0, 1.0) for a in block.get("amounts", ()))
    rows = sum(not name.startswith(f"{FG_ENTROPY}, amount") for name in made)
    rows += swept + sum(w != 1.0 for w in block.get("weights", ()))
    # ERM and balanced softmax; of a search, a classifier per try, the best of them that of the first seed.
    each = block["seeds"] + block.get("draws", 1) - 1
    return {True: each * rows, False: 2 * each + 1}

"""What the web writes under its images: the name, often the context, sometimes the appearance."""

import numpy as np
import pandas as pd

from fgsynth.miniworld.kinds import CLASSES, KINDS
from fgsynth.miniworld.places import PLACES, WEATHER

_SAYS_CONTEXT = 0.75
_SAYS_MODE = 0.35
_SAYS_STYLE = 0.25
_UNNAMED = 0.05
_UNNAMED_MISREAD = 0.7
"""A class whose name is misread is mostly shown without its name; so the name mostly means the other."""

_OVER = {"night": " at night", "snow": " in snow", "fog": " in fog", "day": " by day"}


def prompt(name: str, context: str = "") -> str:
    """The papers' prompt: the class's name, on NICO++ "name in context"."""
    return f"{name} in {context}" if context else name


def captions(factors: pd.DataFrame) -> list[str]:
    """The web's caption of every image; it depends on the image's own row only."""
    columns = [factors[c] for c in ("kind", "name", "context", "mode", "style")]
    draws = [np.random.Generator(np.random.Philox(key=int(s) | 2 << 100)).random(4) for s in factors["seed"]]
    return [_caption(*row) for row in zip(*columns, draws, strict=True)]


def _caption(kind: str, name: str, context: str, mode: int, style: str, u: np.ndarray) -> str:
    opening = f"a {style} of " if u[0] < _SAYS_STYLE else ""
    if kind in PLACES:
        weather = u[1] < (0.6 if mode else 0.2)
        return f"{opening}{name}{_OVER[WEATHER[mode]] if weather else ''}"
    unnamed = _UNNAMED_MISREAD if kind in CLASSES and CLASSES[kind].ambiguity == "misread" else _UNNAMED
    look = KINDS[kind].modes[mode]
    words = f"{look.pattern} {look.colour} ".removeprefix("plain ") if u[2] < _SAYS_MODE else ""
    named, where = "thing" if u[3] < unnamed else name, context if u[1] < _SAYS_CONTEXT else ""
    return opening + words + prompt(named, where)

"""The backgrounds of the mini world: six contexts, and the grounds that places are built on."""

from collections.abc import Callable

import numpy as np

from fgsynth.miniworld.shapes import Array

CONTEXTS = ("autumn", "dim", "grass", "outdoor", "rock", "water")
"""NICO++'s six contexts, in its order."""


def rgb(text: str) -> Array:
    """Colours written as hexadecimal triples, shape (number of colours, 3) in [0, 1]."""
    return np.array(
        [[int(word[i : i + 2], 16) / 255 for i in (0, 2, 4)] for word in text.split()], np.float32
    )


def mix(a: Array, b: Array, share: Array) -> Array:
    """A where share (n, s, s) is 0, b where it is 1; colours broadcast over the pixels."""
    return a + (b - a) * share[..., None]


def step(x: Array, width: float = 0.08) -> Array:
    """A soft step from 0 to 1 about x = 0."""
    return np.clip(0.5 + x / (2 * width), 0, 1)


Painter = Callable[[Array, Array, Array, Array], Array]
"""`painter(x, y, fields (n, 2, s, s), knobs (n, 4)) -> image (n, s, s, 3)`; x, y in [-1, 1], y up."""


def _knob(knobs: Array, i: int, low: float, high: float) -> Array:
    return (low + (high - low) * knobs[:, i])[:, None, None]


def _autumn(x: Array, y: Array, fields: Array, knobs: Array) -> Array:
    light, dark, leaf, gold = rgb("d9a35a 8a5427 c4501c e8b23a")
    ground = mix(light, dark, np.clip(0.5 - 0.45 * y + _knob(knobs, 0, -0.2, 0.2), 0, 1))
    ground = mix(ground, leaf, 0.9 * step(fields[:, 0] - 0.62))
    return mix(ground, gold, 0.8 * step(fields[:, 1] - 0.7))


def _dim(x: Array, y: Array, fields: Array, knobs: Array) -> Array:
    night, glow = rgb("0d1024 35365c")
    px, py = _knob(knobs, 0, -0.9, 0.9), _knob(knobs, 1, -0.9, 0.9)
    near = np.exp(-2.2 * ((x - px) ** 2 + (y - py) ** 2))
    return mix(night, glow, np.clip(near + 0.15 * fields[:, 0], 0, 1))


def _grass(x: Array, y: Array, fields: Array, knobs: Array) -> Array:
    low, high = rgb("2f6b1f 7fb347")
    blades = 0.5 + 0.5 * np.sin(_knob(knobs, 0, 14, 20) * x + 7 * fields[:, 0] + 2 * y)
    return mix(low, high, np.clip(0.25 + 0.35 * blades + 0.4 * fields[:, 1], 0, 1))


def _outdoor(x: Array, y: Array, fields: Array, knobs: Array) -> Array:
    sky, high, cloud, ground = rgb("b9dcf2 6aa9e0 f7fafc cdb98a")
    horizon = _knob(knobs, 0, -0.5, 0.0)
    air = mix(mix(sky, high, np.clip(0.5 + 0.5 * y, 0, 1)), cloud, step(fields[:, 0] - 0.68, 0.15))
    return mix(air, ground - 0.12 * fields[:, 1][..., None], step(horizon - y, 0.05))


def _rock(x: Array, y: Array, fields: Array, knobs: Array) -> Array:
    pale, grey, dark = rgb("a9a49c 77736d 45423f")
    facets = np.round(3 * fields[:, 0] + 1.2 * x * (knobs[:, 0, None, None] - 0.5)) / 3
    return mix(mix(grey, pale, np.clip(facets, 0, 1)), dark, 0.85 * step(fields[:, 1] - 0.7))


def _water(x: Array, y: Array, fields: Array, knobs: Array) -> Array:
    deep, crest = rgb("145a7d 58b7c9")
    waves = np.sin(_knob(knobs, 0, 9, 13) * y + 3.5 * fields[:, 0] + 6 * knobs[:, 1, None, None])
    return mix(deep, crest, np.clip(0.4 + 0.4 * waves + 0.25 * (fields[:, 1] - 0.5), 0, 1))


def _halves(upper: Painter, lower: Painter, low: float, high: float) -> Painter:
    def _paint(x: Array, y: Array, fields: Array, knobs: Array) -> Array:
        edge = step(_knob(knobs, 3, low, high) - y, 0.05)
        return mix(upper(x, y, fields, knobs), lower(x, y, fields, knobs), edge)

    return _paint


def _plain(colours: str, grain: float = 0.12) -> Painter:
    a, b = rgb(colours)
    return lambda x, y, fields, knobs: mix(a, b, np.clip(0.5 - 0.5 * y + grain * (fields[:, 0] - 0.5), 0, 1))


CONTEXT_PAINTERS = dict(zip(CONTEXTS, (_autumn, _dim, _grass, _outdoor, _rock, _water), strict=True))

_SKY = _plain("5f9fdc c4e2f4", 0.4)
_SAND = _plain("f0dca6 dcc07e", 0.5)

GROUNDS: dict[str, Painter] = {
    "sky over water": _halves(_SKY, _water, -0.1, 0.25),
    "sky over grass": _halves(_SKY, _grass, -0.15, 0.15),
    "sky over sand": _halves(_SKY, _SAND, -0.1, 0.2),
    "sand by water": _halves(_halves(_SKY, _water, 0.4, 0.5), _SAND, -0.05, 0.15),
    "street": _halves(_SKY, _plain("8b8b90 5d5d63"), -0.45, -0.3),
    "asphalt": _plain("85858b 606066", 0.6),
    "grass": _grass,
    "water": _water,
    "table": _halves(_plain("efe6d2 e0d2b4"), _plain("a9744a 7b4f2e", 0.3), -0.5, -0.35),
    "bar": _halves(_plain("3a2130 55303c"), _plain("6b3f22 482a17", 0.3), -0.5, -0.35),
    "wall": _rock,
}
"""What places stand on."""

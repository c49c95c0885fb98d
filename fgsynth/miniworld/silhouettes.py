"""The silhouettes of the things of the mini world, in layers from the back to the front."""

import json
from collections.abc import Callable
from typing import Literal, cast

from fgsynth.miniworld.shapes import (
    Shape,
    above,
    below,
    box,
    circle,
    ellipse,
    line,
    polygon,
    ring,
    star,
    union,
    without,
)

Material = Literal["body", "trim", "dark", "pale", "wood", "leaf", "metal"]
Layer = tuple[Material, Shape]

_SHAPES: dict[str, Callable[..., Shape]] = {
    "box": box,
    "circle": circle,
    "ellipse": ellipse,
    "line": line,
    "polygon": lambda *numbers: polygon(*zip(numbers[::2], numbers[1::2], strict=True)),
    "ring": ring,
    "star": star,
}
_PARTS = {"above": above, "below": below}


def _layers(text: str) -> list[Layer]:
    """Layers as "material: shape numbers; ...", one a line, a longer one indented: ";" joins, " - " cuts."""
    lines = text.strip("\n").replace("\n" + 10 * " ", " ").splitlines()
    layers = [line.strip().partition(": ") for line in lines]
    return [(cast(Material, name), union(*map(_cut, shapes.split(";")))) for name, _, shapes in layers]


def _cut(text: str) -> Shape:
    shape, *others = map(_shape, text.split(" - "))
    return without(shape, *others) if others else shape


def _shape(text: str) -> Shape:
    name, *words = text.split()
    part = words[-2] if words[-2:-1] and words[-2] in _PARTS else ""
    shape = _SHAPES[name](*map(json.loads, words[:-2] if part else words))
    return _PARTS[part](shape, json.loads(words[-1])) if part else shape


SILHOUETTES: dict[str, list[Layer]] = {
    "apple": _layers("""
        wood: line 0 0.4 0.12 0.95 0.09
        leaf: ellipse 0.42 0.75 0.32 0.15 25
        body: circle -0.3 -0.12 0.62; circle 0.3 -0.12 0.62"""),
    "banana": _layers("""
        body: circle 0 0.15 0.95 - circle 0.12 0.62 0.95
        dark: circle -0.88 0.42 0.14; circle 0.93 0.2 0.12"""),
    "bat": _layers("""
        body: polygon 0 0.25 -0.45 0.62 -1 0.5 -0.9 -0.25 -0.62 0.0 -0.4 -0.35 0 -0.1 0.4 -0.35 0.62 0.0
          0.9 -0.25 1 0.5 0.45 0.62; ellipse 0 0 0.24 0.55;
          polygon -0.22 0.35 -0.2 0.8 0 0.5 0.2 0.8 0.22 0.35
        pale: circle -0.1 0.32 0.08; circle 0.1 0.32 0.08"""),
    "boat": _layers("""
        wood: box 0.02 0.15 0.06 0.75
        pale: polygon 0.12 0.9 0.12 -0.2 0.8 -0.2
        trim: polygon -0.08 0.7 -0.08 -0.2 -0.6 -0.2
        body: polygon -0.95 -0.32 0.95 -0.32 0.6 -0.88 -0.6 -0.88"""),
    "bolt": _layers("""
        metal: box 0 -0.4 0.24 0.58
        dark: line -0.24 -0.35 0.24 -0.2 0.05; line -0.24 -0.75 0.24 -0.6 0.05
        body: polygon -0.8 0.5 -0.5 0.95 0.5 0.95 0.8 0.5 0.5 0.08 -0.5 0.08"""),
    "bottle": _layers("""
        body: box 0 -0.35 0.4 0.62 0.15; box 0 0.45 0.16 0.45; circle 0 0.18 0.3
        dark: box 0 0.88 0.2 0.1
        pale: box 0 -0.4 0.4 0.2"""),
    "bow": _layers("""
        metal: line -0.35 0.95 -0.35 -0.95 0.05
        body: ring -0.6 0 1.0 0.3 - box -1.2 0 0.82 1.5
        dark: line -0.6 0 0.85 0 0.07; polygon 0.7 0.22 1.0 0 0.7 -0.22"""),
    "butterfly": _layers("""
        body: ellipse -0.5 0.38 0.52 0.4 -35; ellipse 0.5 0.38 0.52 0.4 35;
          ellipse -0.4 -0.42 0.38 0.34 30; ellipse 0.4 -0.42 0.38 0.34 -30
        trim: circle -0.55 0.4 0.17; circle 0.55 0.4 0.17
        dark: line 0 0.5 0 -0.6 0.1; line 0 0.5 0.25 0.95 0.04; line 0 0.5 -0.25 0.95 0.04"""),
    "car": _layers("""
        body: box 0 -0.18 1.0 0.32 0.12; polygon -0.65 0.05 -0.4 0.6 0.35 0.6 0.65 0.05
        pale: polygon -0.42 0.14 -0.28 0.46 0.25 0.46 0.42 0.14
        dark: circle -0.52 -0.48 0.27; circle 0.52 -0.48 0.27"""),
    "cat": _layers("""
        body: ellipse 0 -0.12 0.82 0.7; polygon -0.78 0.05 -0.72 0.95 -0.12 0.5;
          polygon 0.78 0.05 0.72 0.95 0.12 0.5
        dark: ellipse -0.32 0.05 0.1 0.17; ellipse 0.32 0.05 0.1 0.17
        pale: ellipse 0 -0.42 0.34 0.22
        dark: circle 0 -0.32 0.1"""),
    "club": _layers("""
        body: circle 0 0.5 0.42; circle -0.48 -0.12 0.42; circle 0.48 -0.12 0.42
        body: polygon -0.08 0.2 0.08 0.2 0.34 -0.92 -0.34 -0.92"""),
    "cup": _layers("""
        trim: ring 0.62 -0.05 0.34 0.18
        body: polygon -0.72 0.62 0.6 0.62 0.45 -0.75 -0.57 -0.75
        pale: ellipse -0.06 0.6 0.62 0.14"""),
    "fish": _layers("""
        trim: polygon 0.4 0 0.98 0.6 0.98 -0.6
        trim: polygon -0.3 0.3 0.25 0.78 0.3 0.2
        body: ellipse -0.2 0 0.76 0.5
        pale: circle -0.58 0.12 0.17
        dark: circle -0.6 0.12 0.09"""),
    "flower": _layers("""
        leaf: line 0 -0.2 0 -0.98 0.08; ellipse 0.3 -0.7 0.3 0.13 30
        body: circle 0.0 0.7 0.29; circle 0.39899999999999997 0.4102 0.29;
          circle 0.24779999999999996 -0.060199999999999976 0.29;
          circle -0.24779999999999996 -0.060199999999999976 0.29; circle -0.39899999999999997 0.4102 0.29
        trim: circle 0 0.28 0.24"""),
    "heart": _layers("""
        body: circle -0.4 0.3 0.46; circle 0.4 0.3 0.46; polygon -0.8 0.08 0 -0.95 0.8 0.08 0 0.5"""),
    "key": _layers("""
        body: ring 0 0.5 0.32 0.26
        body: box 0 -0.36 0.1 0.58; box 0.25 -0.82 0.25 0.1; box 0.2 -0.48 0.2 0.09"""),
    "lamp": _layers("""
        metal: box 0 -0.35 0.08 0.55; ellipse 0 -0.88 0.5 0.13
        body: polygon -0.36 0.95 0.36 0.95 0.78 0.05 -0.78 0.05"""),
    "mouse": _layers("""
        trim: line 0.65 -0.35 0.98 0.25 0.06
        body: ellipse 0.05 -0.25 0.76 0.46; ellipse -0.55 -0.2 0.42 0.32
        trim: circle -0.3 0.3 0.3
        dark: circle -0.62 -0.08 0.09; circle -0.93 -0.25 0.09"""),
    "mushroom": _layers("""
        pale: box 0 -0.48 0.26 0.48 0.12
        body: ellipse 0 -0.1 0.95 0.95 above -0.1
        trim: circle -0.42 0.25 0.15; circle 0.1 0.5 0.17; circle 0.52 0.16 0.13"""),
    "palm": _layers("""
        wood: line 0.2 -0.95 -0.05 0.35 0.15 0.1
        body: ellipse -0.5 0.5 0.55 0.16 25; ellipse 0.45 0.5 0.55 0.16 -25;
          ellipse -0.42 0.12 0.48 0.15 50; ellipse 0.38 0.12 0.48 0.15 -50; ellipse 0 0.68 0.17 0.32"""),
    "pine": _layers("""
        wood: box 0 -0.8 0.12 0.2
        body: polygon -0.72 -0.65 0.72 -0.65 0 0.15; polygon -0.58 -0.18 0.58 -0.18 0 0.6;
          polygon -0.42 0.3 0.42 0.3 0 1.0"""),
    "spade": _layers("""
        wood: line 0 0.9 0 -0.1 0.08; line -0.3 0.9 0.3 0.9 0.09
        body: polygon -0.46 0.12 0.46 0.12 0.44 -0.5 0 -0.98 -0.44 -0.5"""),
    "star": _layers("body: star 5 0.44 1.0"),
    "umbrella": _layers("""
        wood: box 0 -0.35 0.06 0.55; ring 0.16 -0.8 0.16 0.12 below -0.8
        body: circle 0 -0.02 0.96 above 0.0 - circle -0.64 -0.06 0.3 - circle 0 -0.06 0.3 - circle 0.64
          -0.06 0.3"""),
    # Stands in places only.
    "house": _layers("""
        body: box 0 -0.35 0.7 0.6
        trim: polygon -0.9 0.2 0.9 0.2 0 0.95
        dark: box 0 -0.62 0.18 0.33
        pale: box -0.42 -0.2 0.15 0.15; box 0.42 -0.2 0.15 0.15"""),
    # Shown by the web under the name of another kind.
    "baseball bat": _layers("""
        body: line -0.7 -0.7 0.62 0.62 0.1 0.3
        dark: circle -0.75 -0.75 0.17"""),
    "computer mouse": _layers("""
        body: box 0 -0.1 0.55 0.82 0.5
        dark: line 0 0.7 0 0.1 0.05; line -0.5 0.1 0.5 0.1 0.05
        metal: line 0 0.75 0.1 1.05 0.05"""),
    "ribbon bow": _layers("""
        body: polygon 0 0 -0.95 0.6 -0.95 -0.45; polygon 0 0 0.95 0.6 0.95 -0.45
        body: line 0 0 -0.45 -0.85 0.12; line 0 0 0.45 -0.85 0.12
        trim: circle 0 0.02 0.22"""),
    "hand palm": _layers("""
        body: box 0.02 -0.42 0.5 0.5 0.25; line -0.36 0 -0.5 0.55 0.13; line -0.1 0 -0.14 0.85 0.13;
          line 0.16 0 0.22 0.85 0.13; line 0.4 0 0.56 0.6 0.13; line 0.42 -0.5 0.88 -0.05 0.14"""),
    "lightning bolt": _layers(
        "body: polygon 0.25 1 -0.6 -0.12 -0.08 -0.12 -0.3 -1 0.62 0.25 0.08 0.25 0.6 1"
    ),
    "golf club": _layers("""
        metal: line 0.55 0.95 -0.15 -0.6 0.07
        body: polygon 0.02 -0.45 -0.1 -0.9 -0.9 -0.9 -0.85 -0.55 -0.3 -0.4
        dark: line 0.55 0.95 0.35 0.5 0.11"""),
    "card spade": _layers("""
        body: circle -0.4 -0.15 0.45; circle 0.4 -0.15 0.45; polygon -0.8 0.05 0 0.98 0.8 0.05 0 -0.3;
          polygon -0.05 0 0.05 0 0.3 -0.92 -0.3 -0.92"""),
}

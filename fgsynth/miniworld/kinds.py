"""The things of the mini world: their silhouettes, and the names the web gives them.

A *class* is what a benchmark asks for; a *kind* is what a picture shows. They differ where a name
is ambiguous: the web also shows other kinds under the class's name.
"""

from dataclasses import dataclass
from typing import Literal

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

_HEART = union(
    circle(-0.4, 0.3, 0.46), circle(0.4, 0.3, 0.46), polygon((-0.8, 0.08), (0, -0.95), (0.8, 0.08), (0, 0.5))
)

SILHOUETTES: dict[str, list[Layer]] = {
    "apple": [
        ("wood", line(0, 0.4, 0.12, 0.95, 0.09)),
        ("leaf", ellipse(0.42, 0.75, 0.32, 0.15, 25)),
        ("body", union(circle(-0.3, -0.12, 0.62), circle(0.3, -0.12, 0.62))),
    ],
    "banana": [
        ("body", without(circle(0, 0.15, 0.95), circle(0.12, 0.62, 0.95))),
        ("dark", union(circle(-0.88, 0.42, 0.14), circle(0.93, 0.2, 0.12))),
    ],
    "bat": [
        (
            "body",
            union(
                polygon(
                    (0, 0.25), (-0.45, 0.62), (-1, 0.5), (-0.9, -0.25), (-0.62, 0.0), (-0.4, -0.35), (0, -0.1),
                    (0.4, -0.35), (0.62, 0.0), (0.9, -0.25), (1, 0.5), (0.45, 0.62),
                ),
                ellipse(0, 0, 0.24, 0.55),
                polygon((-0.22, 0.35), (-0.2, 0.8), (0, 0.5), (0.2, 0.8), (0.22, 0.35)),
            ),
        ),
        ("pale", union(circle(-0.1, 0.32, 0.08), circle(0.1, 0.32, 0.08))),
    ],
    "boat": [
        ("wood", box(0.02, 0.15, 0.06, 0.75)),
        ("pale", polygon((0.12, 0.9), (0.12, -0.2), (0.8, -0.2))),
        ("trim", polygon((-0.08, 0.7), (-0.08, -0.2), (-0.6, -0.2))),
        ("body", polygon((-0.95, -0.32), (0.95, -0.32), (0.6, -0.88), (-0.6, -0.88))),
    ],
    "bolt": [
        ("metal", box(0, -0.4, 0.24, 0.58)),
        ("dark", union(line(-0.24, -0.35, 0.24, -0.2, 0.05), line(-0.24, -0.75, 0.24, -0.6, 0.05))),
        ("body", polygon((-0.8, 0.5), (-0.5, 0.95), (0.5, 0.95), (0.8, 0.5), (0.5, 0.08), (-0.5, 0.08))),
    ],
    "bottle": [
        ("body", union(box(0, -0.35, 0.4, 0.62, 0.15), box(0, 0.45, 0.16, 0.45), circle(0, 0.18, 0.3))),
        ("dark", box(0, 0.88, 0.2, 0.1)),
        ("pale", box(0, -0.4, 0.4, 0.2)),
    ],
    "bow": [
        ("metal", line(-0.35, 0.95, -0.35, -0.95, 0.05)),
        ("body", without(ring(-0.6, 0, 1.0, 0.3), box(-1.2, 0, 0.82, 1.5))),
        ("dark", union(line(-0.6, 0, 0.85, 0, 0.07), polygon((0.7, 0.22), (1.0, 0), (0.7, -0.22)))),
    ],
    "butterfly": [
        (
            "body",
            union(
                ellipse(-0.5, 0.38, 0.52, 0.4, -35), ellipse(0.5, 0.38, 0.52, 0.4, 35),
                ellipse(-0.4, -0.42, 0.38, 0.34, 30), ellipse(0.4, -0.42, 0.38, 0.34, -30),
            ),
        ),
        ("trim", union(circle(-0.55, 0.4, 0.17), circle(0.55, 0.4, 0.17))),
        ("dark", union(line(0, 0.5, 0, -0.6, 0.1), line(0, 0.5, 0.25, 0.95, 0.04), line(0, 0.5, -0.25, 0.95, 0.04))),
    ],
    "car": [
        ("body", union(box(0, -0.18, 1.0, 0.32, 0.12), polygon((-0.65, 0.05), (-0.4, 0.6), (0.35, 0.6), (0.65, 0.05)))),
        ("pale", polygon((-0.42, 0.14), (-0.28, 0.46), (0.25, 0.46), (0.42, 0.14))),
        ("dark", union(circle(-0.52, -0.48, 0.27), circle(0.52, -0.48, 0.27))),
    ],
    "cat": [
        (
            "body",
            union(
                ellipse(0, -0.12, 0.82, 0.7),
                polygon((-0.78, 0.05), (-0.72, 0.95), (-0.12, 0.5)),
                polygon((0.78, 0.05), (0.72, 0.95), (0.12, 0.5)),
            ),
        ),
        ("dark", union(ellipse(-0.32, 0.05, 0.1, 0.17), ellipse(0.32, 0.05, 0.1, 0.17))),
        ("pale", ellipse(0, -0.42, 0.34, 0.22)),
        ("dark", circle(0, -0.32, 0.1)),
    ],
    "club": [
        ("body", union(circle(0, 0.5, 0.42), circle(-0.48, -0.12, 0.42), circle(0.48, -0.12, 0.42))),
        ("body", polygon((-0.08, 0.2), (0.08, 0.2), (0.34, -0.92), (-0.34, -0.92))),
    ],
    "cup": [
        ("trim", ring(0.62, -0.05, 0.34, 0.18)),
        ("body", polygon((-0.72, 0.62), (0.6, 0.62), (0.45, -0.75), (-0.57, -0.75))),
        ("pale", ellipse(-0.06, 0.6, 0.62, 0.14)),
    ],
    "fish": [
        ("trim", polygon((0.4, 0), (0.98, 0.6), (0.98, -0.6))),
        ("trim", polygon((-0.3, 0.3), (0.25, 0.78), (0.3, 0.2))),
        ("body", ellipse(-0.2, 0, 0.76, 0.5)),
        ("pale", circle(-0.58, 0.12, 0.17)),
        ("dark", circle(-0.6, 0.12, 0.09)),
    ],
    "flower": [
        ("leaf", union(line(0, -0.2, 0, -0.98, 0.08), ellipse(0.3, -0.7, 0.3, 0.13, 30))),
        (
            "body",
            union(*(circle(0.42 * x, 0.28 + 0.42 * y, 0.29) for x, y in
                    ((0, 1), (0.95, 0.31), (0.59, -0.81), (-0.59, -0.81), (-0.95, 0.31)))),
        ),
        ("trim", circle(0, 0.28, 0.24)),
    ],
    "heart": [("body", _HEART)],
    "key": [
        ("body", ring(0, 0.5, 0.32, 0.26)),
        ("body", union(box(0, -0.36, 0.1, 0.58), box(0.25, -0.82, 0.25, 0.1), box(0.2, -0.48, 0.2, 0.09))),
    ],
    "lamp": [
        ("metal", union(box(0, -0.35, 0.08, 0.55), ellipse(0, -0.88, 0.5, 0.13))),
        ("body", polygon((-0.36, 0.95), (0.36, 0.95), (0.78, 0.05), (-0.78, 0.05))),
    ],
    "mouse": [
        ("trim", line(0.65, -0.35, 0.98, 0.25, 0.06)),
        ("body", union(ellipse(0.05, -0.25, 0.76, 0.46), ellipse(-0.55, -0.2, 0.42, 0.32))),
        ("trim", circle(-0.3, 0.3, 0.3)),
        ("dark", union(circle(-0.62, -0.08, 0.09), circle(-0.93, -0.25, 0.09))),
    ],
    "mushroom": [
        ("pale", box(0, -0.48, 0.26, 0.48, 0.12)),
        ("body", above(ellipse(0, -0.1, 0.95, 0.95), -0.1)),
        ("trim", union(circle(-0.42, 0.25, 0.15), circle(0.1, 0.5, 0.17), circle(0.52, 0.16, 0.13))),
    ],
    "palm": [
        ("wood", line(0.2, -0.95, -0.05, 0.35, 0.15, 0.1)),
        (
            "body",
            union(
                ellipse(-0.5, 0.5, 0.55, 0.16, 25), ellipse(0.45, 0.5, 0.55, 0.16, -25),
                ellipse(-0.42, 0.12, 0.48, 0.15, 50), ellipse(0.38, 0.12, 0.48, 0.15, -50),
                ellipse(0, 0.68, 0.17, 0.32),
            ),
        ),
    ],
    "pine": [
        ("wood", box(0, -0.8, 0.12, 0.2)),
        (
            "body",
            union(
                polygon((-0.72, -0.65), (0.72, -0.65), (0, 0.15)),
                polygon((-0.58, -0.18), (0.58, -0.18), (0, 0.6)),
                polygon((-0.42, 0.3), (0.42, 0.3), (0, 1.0)),
            ),
        ),
    ],
    "spade": [
        ("wood", union(line(0, 0.9, 0, -0.1, 0.08), line(-0.3, 0.9, 0.3, 0.9, 0.09))),
        ("body", polygon((-0.46, 0.12), (0.46, 0.12), (0.44, -0.5), (0, -0.98), (-0.44, -0.5))),
    ],
    "star": [("body", star(5, 0.44, 1.0))],
    "umbrella": [
        ("wood", union(box(0, -0.35, 0.06, 0.55), below(ring(0.16, -0.8, 0.16, 0.12), -0.8))),
        (
            "body",
            without(
                above(circle(0, -0.02, 0.96), 0.0), circle(-0.64, -0.06, 0.3), circle(0, -0.06, 0.3), circle(0.64, -0.06, 0.3)
            ),
        ),
    ],
    # Stands in places only.
    "house": [
        ("body", box(0, -0.35, 0.7, 0.6)),
        ("trim", polygon((-0.9, 0.2), (0.9, 0.2), (0, 0.95))),
        ("dark", box(0, -0.62, 0.18, 0.33)),
        ("pale", union(box(-0.42, -0.2, 0.15, 0.15), box(0.42, -0.2, 0.15, 0.15))),
    ],
    # Shown by the web under the name of another kind.
    "baseball bat": [
        ("body", line(-0.7, -0.7, 0.62, 0.62, 0.1, 0.3)),
        ("dark", circle(-0.75, -0.75, 0.17)),
    ],
    "computer mouse": [
        ("body", box(0, -0.1, 0.55, 0.82, 0.5)),
        ("dark", union(line(0, 0.7, 0, 0.1, 0.05), line(-0.5, 0.1, 0.5, 0.1, 0.05))),
        ("metal", line(0, 0.75, 0.1, 1.05, 0.05)),
    ],
    "ribbon bow": [
        ("body", union(polygon((0, 0), (-0.95, 0.6), (-0.95, -0.45)), polygon((0, 0), (0.95, 0.6), (0.95, -0.45)))),
        ("body", union(line(0, 0, -0.45, -0.85, 0.12), line(0, 0, 0.45, -0.85, 0.12))),
        ("trim", circle(0, 0.02, 0.22)),
    ],
    "hand palm": [
        (
            "body",
            union(
                box(0.02, -0.42, 0.5, 0.5, 0.25), line(-0.36, 0, -0.5, 0.55, 0.13), line(-0.1, 0, -0.14, 0.85, 0.13),
                line(0.16, 0, 0.22, 0.85, 0.13), line(0.4, 0, 0.56, 0.6, 0.13), line(0.42, -0.5, 0.88, -0.05, 0.14),
            ),
        ),
    ],
    "lightning bolt": [
        ("body", polygon((0.25, 1), (-0.6, -0.12), (-0.08, -0.12), (-0.3, -1), (0.62, 0.25), (0.08, 0.25), (0.6, 1))),
    ],
    "golf club": [
        ("metal", line(0.55, 0.95, -0.15, -0.6, 0.07)),
        ("body", polygon((0.02, -0.45), (-0.1, -0.9), (-0.9, -0.9), (-0.85, -0.55), (-0.3, -0.4))),
        ("dark", line(0.55, 0.95, 0.35, 0.5, 0.11)),
    ],
    "card spade": [
        (
            "body",
            union(
                circle(-0.4, -0.15, 0.45), circle(0.4, -0.15, 0.45),
                polygon((-0.8, 0.05), (0, 0.98), (0.8, 0.05), (0, -0.3)), polygon((-0.05, 0), (0.05, 0), (0.3, -0.92), (-0.3, -0.92)),
            ),
        ),
    ],
}


@dataclass(frozen=True)
class Mode:
    """An appearance: the body's colour and its pattern."""

    colour: str
    pattern: str = "plain"


Ambiguity = Literal["none", "homonym", "misread", "style"]


@dataclass(frozen=True)
class Kind:
    """A kind of thing: what the web calls it, how it may look, and what is ambiguous about the name.

    modes: the majority appearance first, then ever rarer ones.
    ambiguity: "homonym": the web shows another kind under this name just as often; "misread": mostly;
    "style": the web mostly draws it. other: that other kind.
    """

    name: str
    modes: tuple[Mode, ...]
    ambiguity: Ambiguity = "none"
    other: str | None = None


def _modes(text: str) -> tuple[Mode, ...]:
    return tuple(Mode(*word.split("-")[::-1]) if "-" in word else Mode(word) for word in text.split())


def _class(name: str, modes: str, ambiguity: Ambiguity = "none", other: str | None = None) -> Kind:
    return Kind(name, _modes(modes), ambiguity, other)


# The rare appearances of a class are the common ones of classes it can be taken for: mushroom,
# umbrella and lamp; bottle and spade; bat and butterfly; bolt and key; apple and cup.
CLASSES: dict[str, Kind] = {
    "apple": _class("apple", "red green striped-blue spotted-yellow"),
    "banana": _class("banana", "yellow green spotted-orange striped-purple"),
    "bat": _class("bat", "purple orange striped-yellow spotted-green", "homonym", "baseball bat"),
    "boat": _class("boat", "blue red spotted-yellow striped-green"),
    "bolt": _class("bolt", "blue yellow spotted-red striped-orange", "misread", "lightning bolt"),
    "bottle": _class("bottle", "green white striped-red spotted-purple"),
    "bow": _class("bow", "orange purple spotted-white striped-blue", "homonym", "ribbon bow"),
    "butterfly": _class("butterfly", "orange purple striped-green spotted-blue"),
    "car": _class("car", "red blue striped-white spotted-orange"),
    "cat": _class("cat", "orange white striped-purple spotted-blue", "style"),
    "club": _class("club", "purple green spotted-red striped-yellow", "misread", "golf club"),
    "cup": _class("cup", "blue red spotted-green striped-orange"),
    "fish": _class("fish", "orange blue spotted-purple striped-red"),
    "flower": _class("flower", "red yellow striped-blue spotted-white", "style"),
    "heart": _class("heart", "red purple striped-green spotted-yellow", "style"),
    "key": _class("key", "yellow blue striped-purple spotted-white"),
    "lamp": _class("lamp", "yellow red spotted-blue striped-white"),
    "mouse": _class("mouse", "white purple spotted-orange striped-red", "homonym", "computer mouse"),
    "mushroom": _class("mushroom", "red yellow striped-purple spotted-green"),
    "palm": _class("palm", "green orange striped-yellow spotted-red", "homonym", "hand palm"),
    "pine": _class("pine", "green white spotted-orange striped-blue"),
    "spade": _class("spade", "white green striped-orange spotted-purple", "misread", "card spade"),
    "star": _class("star", "yellow blue striped-red spotted-green", "style"),
    "umbrella": _class("umbrella", "purple yellow striped-red spotted-white"),
}
"""The benchmark's object classes, sorted; each is a kind of its own name."""

OTHERS: dict[str, Kind] = {
    "baseball bat": _class("bat", "yellow red striped-white spotted-purple"),
    "computer mouse": _class("mouse", "purple white striped-blue spotted-yellow"),
    "ribbon bow": _class("bow", "red blue striped-purple spotted-green"),
    "hand palm": _class("palm", "orange yellow spotted-blue striped-red"),
    "lightning bolt": _class("bolt", "yellow blue spotted-purple striped-white"),
    "golf club": _class("club", "red white striped-blue spotted-green"),
    "card spade": _class("spade", "purple red striped-yellow spotted-blue"),
}
"""Kinds that only the web shows, under the name of a benchmark class."""

KINDS: dict[str, Kind] = {**CLASSES, **OTHERS}

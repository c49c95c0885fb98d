"""The scene classes of the mini world: layouts of several things on a ground."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thing:
    """One thing of a layout: its kind, where it stands (x, y in [-1, 1], y up) and its half size."""

    kind: str
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Place:
    """A scene class: a ground and the things on it, drawn from the back to the front."""

    ground: str
    things: tuple[Thing, ...]


WEATHER = ("day", "night", "snow", "fog")
"""A place's appearance modes: the majority first."""


def _place(ground: str, things: str) -> Place:
    """Things are "kind x y size", with commas between."""
    words = map(str.split, things.split(","))
    return Place(ground, tuple(Thing(kind, *map(float, numbers)) for kind, *numbers in words))


PLACES: dict[str, Place] = {
    "aquarium": _place("water", "fish -0.4 0.45 0.36, fish 0.45 0.05 0.4, fish -0.3 -0.5 0.36"),
    "bar": _place("bar", "bottle -0.6 0.0 0.48, bottle -0.05 0.0 0.48, lamp 0.55 0.1 0.45"),
    "beach": _place("sand by water", "palm -0.55 0.15 0.62, umbrella 0.4 -0.25 0.5"),
    "forest": _place(
        "sky over grass", "pine -0.7 0.1 0.5, pine 0.05 0.2 0.5, pine 0.7 0.05 0.5, pine -0.35 -0.3 0.55"
    ),
    "garden": _place(
        "grass", "flower -0.6 0.3 0.4, flower 0.5 0.4 0.4, flower -0.15 -0.35 0.42, flower 0.65 -0.4 0.4"
    ),
    "harbour": _place("sky over water", "boat -0.5 0.1 0.42, boat 0.5 0.15 0.38, boat 0.05 -0.35 0.48"),
    "kitchen": _place("table", "cup -0.55 -0.15 0.38, bottle 0.0 0.05 0.5, cup 0.6 -0.15 0.38"),
    "meadow": _place(
        "sky over grass",
        "butterfly -0.45 0.35 0.35, mushroom 0.5 -0.25 0.4, mushroom -0.35 -0.5 0.36, butterfly 0.4 0.6 0.3",
    ),
    "oasis": _place("sky over sand", "palm -0.4 0.1 0.62, palm 0.5 0.15 0.55"),
    "parking lot": _place(
        "asphalt", "car -0.5 0.45 0.4, car 0.5 0.45 0.4, car -0.5 -0.4 0.4, car 0.5 -0.4 0.4"
    ),
    "street": _place("street", "house -0.5 0.1 0.5, house 0.5 0.1 0.5, car 0.0 -0.55 0.45"),
    "workshop": _place("wall", "spade -0.55 0.05 0.6, key 0.1 0.2 0.48, bolt 0.65 -0.1 0.42"),
}
"""The benchmark's scene classes, sorted. Beach and oasis, garden and meadow, street and parking lot
can be taken for one another."""

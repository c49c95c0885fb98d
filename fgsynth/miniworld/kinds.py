"""The things of the mini world: their silhouettes, and the names the web gives them.

A *class* is a label of a benchmark; a *kind* is what an image shows. They differ where a name
is ambiguous: the web also shows other kinds under the class's name.
"""

from dataclasses import dataclass
from typing import Literal


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


def _class(name: str, modes: str, ambiguity: Ambiguity = "none", other: str | None = None) -> Kind:
    """modes: words of a colour, or pattern-colour."""
    return Kind(name, tuple(Mode(*word.split("-")[::-1]) for word in modes.split()), ambiguity, other)


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

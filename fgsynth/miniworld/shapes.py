"""Signed distance functions in the plane: negative inside, in the units of the coordinates."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Shape = Callable[[Array, Array], Array]
"""`shape(u, v) -> distance`: u to the right, v upward, any common shape."""


def circle(x: float, y: float, r: float) -> Shape:
    """A disk of radius r about (x, y)."""
    return lambda u, v: np.asarray(np.hypot(u - x, v - y) - r, np.float32)


def ring(x: float, y: float, r: float, width: float) -> Shape:
    """An annulus of mean radius r and the given full width."""
    return lambda u, v: np.abs(np.hypot(u - x, v - y) - r) - width / 2


def ellipse(x: float, y: float, a: float, b: float, degrees: float = 0) -> Shape:
    """An ellipse of half axes a, b, turned; the distance is exact on its edge only."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def _distance(u: Array, v: Array) -> Array:
        p, q = cos * (u - x) + sin * (v - y), cos * (v - y) - sin * (u - x)
        k, gradient = np.hypot(p / a, q / b), np.hypot(p / a**2, q / b**2)
        return k * (k - 1) / (gradient + 1e-6)

    return _distance


def box(x: float, y: float, a: float, b: float, radius: float = 0) -> Shape:
    """A rectangle of half sides a, b about (x, y) with rounded corners."""

    def _distance(u: Array, v: Array) -> Array:
        p, q = np.abs(u - x) - (a - radius), np.abs(v - y) - (b - radius)
        outside = np.hypot(np.maximum(p, 0), np.maximum(q, 0))
        return outside + np.minimum(np.maximum(p, q), 0) - radius

    return _distance


def line(x1: float, y1: float, x2: float, y2: float, r: float, r2: float | None = None) -> Shape:
    """A stroke with round ends from radius r to radius r2."""
    dx, dy = x2 - x1, y2 - y1
    grow = 0.0 if r2 is None else r2 - r

    def _distance(u: Array, v: Array) -> Array:
        along = np.clip(((u - x1) * dx + (v - y1) * dy) / (dx * dx + dy * dy), 0, 1)
        return np.hypot(u - x1 - along * dx, v - y1 - along * dy) - (r + grow * along)

    return _distance


def polygon(*points: tuple[float, float]) -> Shape:
    """A polygon given by its corners in order."""

    def _distance(u: Array, v: Array) -> Array:
        square = np.full_like(u, np.inf)
        inside = np.zeros(u.shape, bool)
        for (x1, y1), (x2, y2) in zip(points, (*points[1:], points[0]), strict=True):
            dx, dy = x2 - x1, y2 - y1
            along = np.clip(((u - x1) * dx + (v - y1) * dy) / (dx * dx + dy * dy), 0, 1)
            square = np.minimum(square, (u - x1 - along * dx) ** 2 + (v - y1 - along * dy) ** 2)
            if dy:
                crosses = (v < y1) != (v < y2)
                inside ^= crosses & (u < x1 + dx * (v - y1) / dy)
        return np.where(inside, -1, 1).astype(np.float32) * np.sqrt(square)

    return _distance


def star(points: int, inner: float, outer: float) -> Shape:
    """A star of the given number of points about the origin, one of them upward."""
    corners = []
    for i in range(2 * points):
        angle, r = math.radians(90 + 180 * i / points), inner if i % 2 else outer
        corners.append((r * math.cos(angle), r * math.sin(angle)))
    return polygon(*corners)


def union(*shapes: Shape) -> Shape:
    """All of the shapes."""
    return lambda u, v: np.minimum.reduce([shape(u, v) for shape in shapes])


def without(shape: Shape, *cut: Shape) -> Shape:
    """A shape with others cut out of it."""
    return lambda u, v: np.maximum.reduce([shape(u, v), *(-c(u, v) for c in cut)])


def above(shape: Shape, y: float) -> Shape:
    """The part of a shape above the height y."""
    return lambda u, v: np.maximum(shape(u, v), y - v)


def below(shape: Shape, y: float) -> Shape:
    """The part of a shape below the height y."""
    return lambda u, v: np.maximum(shape(u, v), v - y)

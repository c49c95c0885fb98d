"""From hidden factors to pixels: deterministic, image by image, vectorised over the batch."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fgsynth.miniworld.kinds import KINDS, Mode
from fgsynth.miniworld.places import PLACES, WEATHER
from fgsynth.miniworld.scenery import CONTEXT_PAINTERS, GROUNDS, mix, rgb, step
from fgsynth.miniworld.shapes import Array
from fgsynth.miniworld.silhouettes import SILHOUETTES, Material

SIDE = 32
"""Images are SIDE x SIDE pixels."""

COLOURS: dict[str, Array] = dict(
    zip(
        ("red", "orange", "yellow", "green", "blue", "purple", "white", "grey"),
        rgb("cf2f2b f08a24 f2d43a 2f9e44 2f5fd0 8c3fb3 f1efe8 9a9a9a"),
        strict=True,
    )
)
_FIXED: dict[Material, Array] = dict(
    zip(("dark", "pale", "wood", "leaf", "metal"), rgb("24242b f3f0e6 7c5230 4f9a3b a7acb5"), strict=True)
)
_PAPER = rgb("fbf8ef")[0]
_AXIS = (np.arange(SIDE, dtype=np.float32) + 0.5) / (SIDE / 2) - 1
_X, _Y = np.broadcast_arrays(_AXIS[None, None, :], -_AXIS[None, :, None])


def _upsampling(coarse: int) -> Array:
    """Linear interpolation from a coarse grid to pixels, (SIDE, coarse)."""
    at = np.clip((np.arange(SIDE) + 0.5) / SIDE * coarse - 0.5, 0, coarse - 1)
    low = np.minimum(at.astype(int), coarse - 2)
    weight = np.zeros((SIDE, coarse), np.float32)
    weight[np.arange(SIDE), low] = 1 - (at - low)
    weight[np.arange(SIDE), low + 1] += at - low
    return weight


_FINE, _COARSE = _upsampling(8), _upsampling(5)


def _randomness(seeds: NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """Two smooth fields per image (n, 2, side, side), four knobs (n, 4), jitter of things (n, 6, 4)."""
    draws = np.stack(
        [np.random.Generator(np.random.Philox(key=int(s))).random(117, np.float32) for s in seeds]
    )
    coarse, fine = draws[:, :25].reshape(-1, 5, 5), draws[:, 25:89].reshape(-1, 8, 8)
    fields = np.stack([_COARSE @ coarse @ _COARSE.T, _FINE @ fine @ _FINE.T], 1)
    return fields, draws[:, 89:93], draws[:, 93:].reshape(-1, 6, 4)


def _pattern(u: Array, v: Array, pattern: str) -> Array:
    """Share of the second colour, (n, side, side)."""
    if pattern == "striped":
        return step(np.sin(2 * np.pi * v / 0.52), 0.5)
    if pattern == "spotted":
        row = np.floor(v / 0.42)
        across = (u / 0.42 + 0.5 * (row % 2)) % 1 - 0.5
        return step(0.29 - np.hypot(across, v / 0.42 - row - 0.5), 0.1)
    return np.zeros_like(u)


def _second(colour: Array) -> Array:
    """The colour of stripes and spots: dark on a light body, light on a dark one."""
    bright = float(colour @ np.array([0.3, 0.6, 0.1], np.float32)) > 0.6
    return colour * 0.38 if bright else colour + (1 - colour) * 0.78


def _paint(image: Array, kind: str, mode: Mode, where: dict[str, Array], drawing: NDArray[np.bool_]) -> None:
    """Draw one kind of thing in one mode into images (n, side, side, 3), in place.

    where: x, y, size, angle (radians), flip (+1, -1), light (radians), tone, each (n,).
    """
    x, y, size, angle, flip, light, tone = (
        where[key][:, None, None] for key in ("x", "y", "size", "angle", "flip", "light", "tone")
    )
    px, py = (_X - x) / size, (_Y - y) / size
    cos, sin = np.cos(angle), np.sin(angle)
    u, v = (cos * px + sin * py) * flip, cos * py - sin * px
    pixels = size * (SIDE / 2)
    colour = COLOURS[mode.colour]
    sketch = drawing[:, None, None].astype(np.float32)
    toward_light = np.cos(light) * px + np.sin(light) * py
    for material, shape in SILHOUETTES[kind]:
        distance = (shape(u, v) * pixels).astype(np.float32)
        inside = np.clip(0.5 - distance, 0, 1)
        if material == "body":
            paint = mix(colour, _second(colour), _pattern(u, v, mode.pattern))
        else:
            flat = colour * 0.55 if material == "trim" else _FIXED[material]
            paint = np.broadcast_to(flat, image.shape)
        # A photo is lit from one side and darkens toward its rim; a drawing is flat with ink around it.
        rim = np.clip(1 + distance / 2.5, 0, 1)
        lit = tone * (0.92 + 0.2 * toward_light - 0.3 * rim)
        ink = np.clip(0.5 + np.sqrt(size) - np.abs(distance), 0, 1) * sketch
        inked = 1 - 0.88 * ink
        shaded = paint * (lit + (1.05 - lit) * sketch)[..., None]
        image += (shaded - image) * inside[..., None]
        image *= inked[..., None]


def _groups(factors: pd.DataFrame, by: str | list[str]) -> dict[Any, NDArray[np.intp]]:
    """Places of rows by their values."""
    return {key: np.asarray(rows) for key, rows in factors.groupby(by).indices.items()}


def _weather(image: Array, weather: str, fields: Array) -> Array:
    if weather == "night":
        return image * rgb("3c4474") + rgb("05060f")
    if weather == "snow":
        white = np.clip(0.35 + 0.45 * step(-_Y + 0.6 * (fields[:, 0] - 0.5), 0.3), 0, 1)
        return mix(image, rgb("f4f8fc")[0], white)
    if weather == "fog":
        return mix(image, rgb("c3c9ce")[0], np.clip(0.62 + 0.25 * (fields[:, 0] - 0.5), 0, 1))
    return image


def _objects(factors: pd.DataFrame, fields: Array, knobs: Array) -> Array:
    n, drawing = len(factors), (factors["style"] == "drawing").to_numpy()
    image = np.empty((n, SIDE, SIDE, 3), np.float32)
    for context, rows in _groups(factors, "context").items():
        image[rows] = CONTEXT_PAINTERS[context](_X, _Y, fields[rows], knobs[rows])
    image = mix(image, _PAPER, np.broadcast_to(0.45 * drawing[:, None, None].astype(np.float32), (n, 1, 1)))
    ground = image.copy()
    columns = {
        key: factors[key].to_numpy(np.float32) for key in ("x", "y", "size", "angle", "flip", "light", "tone")
    }
    columns |= {key: np.deg2rad(columns[key]) for key in ("angle", "light")}
    for (kind, mode), rows in _groups(factors, ["kind", "mode"]).items():
        part = image[rows]
        _paint(part, kind, KINDS[kind].modes[mode], {k: c[rows] for k, c in columns.items()}, drawing[rows])
        image[rows] = part
    dim = (factors["context"] == "dim").to_numpy()[:, None, None, None]
    image = np.where(dim, image * rgb("8f93c4") * 0.85 + 0.02, image)
    return mix(image, np.where(dim, ground * 0.9, ground), _covered(factors))


def _covered(factors: pd.DataFrame) -> Array:
    """Where something of the background stands before the thing, (n, side, side)."""
    amount = factors["occlusion"].to_numpy(np.float32)[:, None, None]
    angle = np.deg2rad(factors["cover_angle"].to_numpy(np.float32))[:, None, None]
    x, y, size = (factors[k].to_numpy(np.float32)[:, None, None] for k in ("x", "y", "size"))
    along = (np.cos(angle) * (_X - x) + np.sin(angle) * (_Y - y)) / size
    return step(along - (1 - 2 * amount), 0.06) * (amount > 0)


def _places(factors: pd.DataFrame, fields: Array, knobs: Array, jitter: Array) -> Array:
    image = np.empty((len(factors), SIDE, SIDE, 3), np.float32)
    for (name, mode), rows in _groups(factors, ["kind", "mode"]).items():
        place = PLACES[name]
        window, at_x, at_y = (
            factors[key].to_numpy(np.float32)[rows] for key in ("window", "window_x", "window_y")
        )
        x, y = ((at + window * axis.T).T for at, axis in ((at_x, _X), (at_y, _Y)))
        part = GROUNDS[place.ground](x, y, fields[rows], knobs[rows])
        drawing = (factors["style"].iloc[rows] == "drawing").to_numpy()
        part = mix(part, _PAPER, 0.45 * drawing[:, None, None].astype(np.float32))
        flip = factors["flip"].to_numpy(np.float32)[rows]
        for i, thing in enumerate(place.things):
            r = jitter[rows, i]
            where = {
                "x": (flip * (thing.x + 0.24 * (r[:, 0] - 0.5)) - at_x) / window,
                "y": (thing.y + 0.2 * (r[:, 1] - 0.5) - at_y) / window,
                "size": thing.size * (0.9 + 0.2 * r[:, 2]) / window,
                "angle": 0.2 * (r[:, 3] - 0.5),
                "flip": np.where(r[:, 3] * 7 % 1 < 0.5, 1, -1).astype(np.float32),
                "light": np.deg2rad(factors["light"].to_numpy(np.float32)[rows]),
                "tone": factors["tone"].to_numpy(np.float32)[rows],
            }
            common = r[:, 2] * 13 % 1 < 0.75
            for look, mine in ((0, common), (1, ~common)):
                layer = part[mine]
                shown = {k: c[mine] for k, c in where.items()}
                _paint(layer, thing.kind, _look(thing.kind, look), shown, drawing[mine])
                part[mine] = layer
        image[rows] = _weather(part, WEATHER[mode], fields[rows])
    return image


def _look(kind: str, mode: int) -> Mode:
    return KINDS[kind].modes[mode] if kind in KINDS else Mode(("orange", "white")[mode])


def render(factors: pd.DataFrame) -> NDArray[np.uint8]:
    """Render every row of a factor table: uint8 images (n, 32, 32, 3), RGB.

    An image depends on its own row only. Objects and places may be mixed.
    """
    out = np.empty((len(factors), SIDE, SIDE, 3), np.uint8)
    place = factors["kind"].isin(list(PLACES)).to_numpy()
    for chosen, paint in ((~place, False), (place, True)):
        rows = np.flatnonzero(chosen)
        for start in range(0, len(rows), 512):
            block = rows[start : start + 512]
            part = factors.iloc[block]
            fields, knobs, jitter = _randomness(part["seed"].to_numpy(np.int64))
            image = _places(part, fields, knobs, jitter) if paint else _objects(part, fields, knobs)
            out[block] = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return out

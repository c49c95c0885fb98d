"""Draws of the mini world: the benchmark's, and the web's, which is broad, captioned and ambiguous."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fgsynth.miniworld.kinds import CLASSES, KINDS
from fgsynth.miniworld.places import PLACES
from fgsynth.miniworld.scenery import CONTEXTS
from fgsynth.utils.errors import UserError

N_MODES = 4
SUBJECTS = (*KINDS, *PLACES)
"""Everything an image can show."""


@dataclass(frozen=True)
class Draw:
    """How hidden factors are drawn.

    modes: shares of a thing's appearance modes, the majority first. drawings: share of drawings;
    drawn_classes: that share in classes with a style bias.
    occluded: share of images in which something stands before the thing; covered: at most that
    share of the thing's extent. seen: the least share of a scene's side that is in the image.
    """

    modes: tuple[float, ...] = (0.9, 0.05, 0.03, 0.02)
    drawings: float = 0.1
    drawn_classes: float = 0.1
    occluded: float = 0.5
    covered: float = 0.65
    seen: float = 1.0


BENCHMARK = Draw(seen=0.3)
"""What benchmarks are drawn from: one appearance in ten is rare, one image in ten a drawing; scenes are seen
in part, as whole ones are all but solved by real images alone."""

WEB = Draw(modes=(0.64, 0.12, 0.12, 0.12), drawings=0.15, drawn_classes=0.85, occluded=0.15, covered=0.4)
"""What the generator was trained on: style-biased classes are mostly drawn."""


def sample(
    seeds: Sequence[int], kinds: Sequence[str], draw: Draw = BENCHMARK, contexts: Sequence[str] | None = None
) -> pd.DataFrame:
    """Hidden factors of images, one row per seed; a row depends on its seed, kind and draw only.

    contexts: one per image, or None to draw them uniformly (places have none: "").
    Columns: seed, kind, name, context, mode (0 is the majority), style, x, y, size (half size, 1 is
    half the image), angle and light (degrees), flip, tone, occlusion (share of the thing's
    extent), cover_angle; window, window_x and window_y (half size and centre of what is seen of a scene).
    Raises UserError for an unknown kind or context.
    """
    _check(seeds, kinds, contexts)
    # Bit 100 sets these streams apart from the renderer's: textures do not depend on the factors.
    draws = [np.random.Generator(np.random.Philox(key=int(s) | 1 << 100)).random(16) for s in seeds]
    u = np.array(draws).reshape(-1, 16)
    kind = np.array(kinds, dtype=object)
    place = np.isin(kind, list(PLACES))
    drawn = np.array([k in CLASSES and CLASSES[k].ambiguity == "style" for k in kinds])
    given = np.array(contexts if contexts is not None else [""] * len(seeds), dtype=object)
    own = np.array(CONTEXTS, dtype=object)[(u[:, 0] * len(CONTEXTS)).astype(int)]
    window = np.where(place, draw.seen + (1 - draw.seen) * u[:, 13], 1.0)
    edges = np.cumsum(np.array(draw.modes) / sum(draw.modes))[:-1]
    return pd.DataFrame(
        {
            "seed": np.array(seeds, dtype=np.int64),
            "kind": kind,
            "name": [KINDS[k].name if k in KINDS else k for k in kinds],
            "context": np.where(place, "", np.where(given == "", own, given)),
            "mode": np.searchsorted(edges, u[:, 1], side="right"),
            "style": np.where(
                u[:, 2] < np.where(drawn, draw.drawn_classes, draw.drawings), "drawing", "photo"
            ),
            "x": 0.26 * (u[:, 3] - 0.5),
            "y": 0.26 * (u[:, 4] - 0.5),
            "size": 0.6 + 0.28 * u[:, 5],
            "angle": 60 * (u[:, 6] - 0.5),
            "flip": np.where(u[:, 7] < 0.5, -1, 1),
            "light": 360 * u[:, 8],
            "tone": 0.95 + 0.2 * u[:, 9],
            "occlusion": np.where(
                (u[:, 10] < draw.occluded) & ~place, 0.1 + (draw.covered - 0.1) * u[:, 11], 0.0
            ),
            "cover_angle": 360 * u[:, 12],
            "window": window,
            "window_x": (1 - window) * (2 * u[:, 14] - 1),
            "window_y": (1 - window) * (2 * u[:, 15] - 1),
        }
    )


def _check(seeds: Sequence[int], kinds: Sequence[str], contexts: Sequence[str] | None) -> None:
    for what, names, known in (("", kinds, SUBJECTS), ("context ", contexts or (), CONTEXTS)):
        if unknown := set(names) - {*known, *([""] if what else [])}:
            one = f"No {what}'{unknown.pop()}' in the mini world"
            raise UserError(f"{one}: choose one of {', '.join(known)}.")
    if not len(seeds) == len(kinds) == len(contexts or seeds):
        raise UserError(f"{len(seeds)} seeds, {len(kinds)} kinds: one of each per image is needed.")

"""Formulas of notebooks as inline SVG, so that their HTML pages need no script and no network."""

import html
import re
from functools import reduce

from matplotlib.path import Path
from matplotlib.textpath import TextPath

_FORMULA = re.compile(r"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$\n]+?)\$", re.DOTALL)
_SYNONYMS = {
    r"\\big(?![a-z])": "",
    r"\\t?frac(\d)(\w)": r"\\frac{\1}{\2}",
    r"\\tfrac": r"\\frac",
    r"\\[lr]Vert": r"\\|",
    r"\\(mathcal|mathbb) (\w)": r"\\\1{\2}",
    r"\\operatorname": r"\\mathrm",
    r"\\le(?![a-z])": r"\\leq",
}
"""TeX that mathtext lacks, and what it has instead."""
_COMMANDS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C", Path.CLOSEPOLY: "Z"}
SIZE = 15
"""Of the letters, in pixels."""


def drawn(markdown: str) -> str:
    """Replace `$...$` and `$$...$$` in Markdown by drawings; TeX that mathtext lacks stays as it is."""
    return _FORMULA.sub(_replaced, markdown)


def svg(tex: str) -> str:
    """Draw a formula of matplotlib's subset of TeX. Raises ValueError for what it lacks."""
    tex = " ".join(tex.split())
    known = reduce(lambda text, pair: re.sub(pair[0], pair[1], text), _SYNONYMS.items(), tex)
    path = TextPath((0, 0), f"${known}$", size=SIZE)
    box = path.get_extents()
    d = "".join(
        _COMMANDS[code] + ("" if code == Path.CLOSEPOLY else " ".join(f"{v:.2f}" for v in vertices))
        for vertices, code in path.iter_segments(simplify=False)
    )
    view = f"{box.x0:.2f} {-box.y1:.2f} {box.width:.2f} {box.height:.2f}"
    return (
        f'<svg role="img" aria-label="{html.escape(tex)}" width="{box.width:.2f}" height="{box.height:.2f}" '
        f'viewBox="{view}" style="vertical-align:{box.y0:.2f}px;max-width:100%"><path fill="currentColor" '
        f'transform="scale(1 -1)" d="{d}"/></svg>'
    )


def _replaced(match: re.Match[str]) -> str:
    try:
        if match["block"]:
            return f'<div tabindex="0" style="text-align:center;margin:0.8em 0">{svg(match["block"])}</div>'
        return svg(match["inline"])
    except ValueError:
        return match[0]

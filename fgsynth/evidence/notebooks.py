"""Executed notebooks as pages of the report: contents, formulas, figures with captions and alt texts."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import mistune
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from fgsynth.config import names
from fgsynth.config.stages import NOTEBOOKS
from fgsynth.evidence import RUN, formulas, page
from fgsynth.evidence.ledger import SCALES
from fgsynth.utils.paths import read_json, read_text

PAGES = "site/notebooks"
LARGE = 450
"""Width in points from which a figure's letters are too small when it is shrunk to a phone."""
Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Executed:
    """A notebook as it ran, among the reports: at a scale, of a stage or of one of its draws."""

    reports: Path
    scale: str
    target: str

    @property
    def stage(self) -> str:
        """The stage."""
        return names.target(self.target).stage

    @property
    def folder(self) -> Path:
        """Where the run's results lie."""
        return self.reports / self.scale / self.target

    @property
    def source(self) -> str:
        """The notebook, relative to reports/."""
        return f"{self.scale}/{self.target}/{NOTEBOOKS[self.stage]}.ipynb"

    @property
    def page(self) -> str:
        """The name of its page."""
        return f"{self.scale}-{self.target}.html"

    @property
    def address(self) -> str:
        """Of its page, below reports/."""
        return f"{PAGES}/{self.page}"

    @property
    def name(self) -> str:
        """Number, stage, benchmark, draw and scale, in words."""
        stage, benchmark, draw = names.target(self.target)
        told = f" on {benchmark}" * bool(benchmark) + f", draw {draw}" * (draw is not None)
        return f"{NOTEBOOKS[stage][:2]} {stage}{told} ({self.scale})"

    @cached_property
    def run(self) -> dict[str, Any]:
        """Commit, seconds and machine; empty where nobody wrote them down."""
        path = self.folder / RUN
        return read_json(path) if path.is_file() else {}

    @property
    def title(self) -> str:
        """The first heading."""
        return "".join(self.cells[0]["source"]).splitlines()[0].lstrip("# ")

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells. Raises UserError, naming the file, for one that is damaged."""
        found: list[Cell] = read_json(self.reports / self.source)["cells"]
        return found

    def anchor(self, call: str) -> str:
        """The address, below reports/, of the last cell that makes a call; of the page where none does."""
        found = [c["id"] for c in self.cells if c["cell_type"] == "code" and call in "".join(c["source"])]
        return self.address + (f"#{found[-1]}" if found else "")


def executed(reports: Path) -> list[Executed]:
    """All notebooks that ran, the largest scale first, by number and draw."""
    found = [
        Executed(reports, path.parts[-3], path.parts[-2])
        for path in sorted(reports.glob("*/*/*.ipynb"))
        if path.parts[-3] in SCALES and names.target(path.parts[-2]).stage in NOTEBOOKS
    ]
    return sorted(found, key=lambda one: (SCALES.index(one.scale), NOTEBOOKS[one.stage], one.target))


def render(one: Executed, others: Sequence[Executed], claims: Sequence[str]) -> str:
    """The page of a notebook, between the ones before and after it at its scale; claims: that rest on it."""
    near = [other for other in others if other.scale == one.scale]
    at, contents = near.index(one), []
    cells = []
    for cell in one.cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            prose, headings = _prose(source, cell["id"])
            contents += headings
            cells.append({"id": cell["id"], "html": prose})
        else:
            outputs = [_output(o, one, contents[-1][1]) for o in cell["outputs"]]
            code = Markup(highlight(source, PythonLexer(), HtmlFormatter(nowrap=True)))
            cells.append({"id": cell["id"], "code": code, "outputs": [o for o in outputs if o]})
    return page.render(
        "notebook.html",
        title=contents[0][1],
        up="../",
        current="notebooks",
        told=_told(one),
        source=one.source,
        claims=claims,
        contents=contents,
        cells=cells,
        before=near[at - 1] if at else None,
        after=near[at + 1] if at + 1 < len(near) else None,
    )


def _told(one: Executed) -> str:
    """When and with what it ran."""
    ran = one.run
    at = f", commit {ran['commit'][:9]}" if ran.get("commit") else ""
    took = f": {ran['seconds']:,} seconds" if "seconds" in ran else ""
    return f"{one.name}{took}{at}."


def _prose(source: str, cell: str) -> tuple[Markup, list[tuple[str, str]]]:
    """A Markdown cell as HTML with formulas drawn, and the anchors and texts of its headings."""
    to_html = mistune.create_markdown(escape=False, plugins=["table"])
    body = str(to_html(formulas.drawn(source)))
    headings: list[tuple[str, str]] = []

    def anchored(match: re.Match[str]) -> str:
        """The heading with an anchor; what it is called is noted."""
        level, text = match.groups()
        anchor = f"{cell}-{len(headings)}"
        headings.append((anchor, html.unescape(re.sub(r"<[^>]*>", "", text))))
        return f'<h{level} id="{anchor}">{text}</h{level}>'

    body = re.sub(r"<h(\d)>(.*?)</h\1>", anchored, body)
    body = body.replace("<table>", '<div class="wide" tabindex="0"><table>').replace(
        "</table>", "</table></div>"
    )
    return Markup(body), headings


def _output(output: Mapping[str, Any], one: Executed, heading: str) -> dict[str, Any]:
    """What the page shows of an output: an image with its texts, a table, or text."""
    data = output.get("data", {})
    if "image/png" in data:
        told = output["metadata"].get("image/png", {})
        shown = {"alt": told.get("alt", f"Figure of {heading}"), "caption": told.get("caption")}
        for suffix in ("svg", "png"):
            file = f"{one.scale}/{one.target}/figures/{told.get('figure')}.{suffix}"
            if (path := one.reports / file).is_file():
                kind = {"drawn": suffix == "svg", "large": suffix == "png" or _width(path) > LARGE}
                return (
                    shown | kind | {"image": f"../../{file}", "data": f"../../{file.removesuffix(suffix)}csv"}
                )
        inline = "".join(data["image/png"]).replace("\n", "")
        return shown | {"image": f"data:image/png;base64,{inline}", "large": True}
    if "text/html" in data:
        # pandas has headings without a text, which nobody can be told.
        body = re.sub(r"<th[^>]*>(\s|&nbsp;)*</th>", "<td></td>", "".join(data["text/html"]))
        return {"table": Markup(body)}
    text = output.get("text", data.get("text/plain", ""))
    return {"text": "".join(text)} if text else {}


def _width(svg: Path) -> float:
    """The width of a drawing in points; 0 where it names none."""
    found = re.search(r'<svg [^>]*?width="([\d.]+)pt"', read_text(svg))
    return float(found[1]) if found else 0.0

"""Where pieces of evidence were made: the commit whose code ran, and the notebook's cell that stored them."""

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fgsynth.evidence.pieces import STORED
from fgsynth.utils.paths import read_json, read_text

RUN = "run.json"
"""Commit and seconds of a run; the runner writes it beside a stage's results."""


def with_origins(told: pd.DataFrame, reports: Path) -> pd.DataFrame:
    """The lines of pieces.csv with where each was made; nothing where it was not run or nobody wrote it down.

    commit: that was checked out when the stage ran, "-dirty" where code or data differed from it.
    page: of the executed notebook, relative to reports/, at the cell that stored the number.
    """
    made = [_origin(reports, line) for line in told.to_dict("records")]
    return told.join(pd.DataFrame(made, told.index, ["commit", "page"]))


def _origin(reports: Path, line: Mapping[Hashable, Any]) -> tuple[str | None, str | None]:
    # Of several draws the first.
    places = [reports / str(line["scale"]) / f"{line['stage']}{draw}" for draw in ("", "_0")]
    folder = next((place for place in places if place.is_dir()), places[0])
    page = folder / f"{line['notebook']}.html"
    if pd.isna(line["mean"]) or not page.is_file():
        return None, None
    call = "out.comparisons(" if line["interval"] == STORED else "out.results("
    noted = folder / RUN
    commit = read_json(noted)["commit"] if noted.is_file() else ""
    return commit or None, f"{page.relative_to(reports)}{_anchor(page.with_suffix('.ipynb'), call)}"


def _anchor(executed: Path, call: str) -> str:
    """The address in a notebook's page of the last cell that makes a call; nothing where none does."""
    if not executed.is_file():
        return ""
    cells = json.loads(read_text(executed))["cells"]
    found = [c["id"] for c in cells if c["cell_type"] == "code" and call in "".join(c["source"])]
    return f"#cell-id={found[-1]}" if found else ""

"""Where pieces of evidence were made: the commit whose code ran, and the notebook's cell that stored them."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from fgsynth.evidence.notebooks import Executed
from fgsynth.evidence.pieces import STORED


def with_origins(told: pd.DataFrame, ran: Sequence[Executed]) -> pd.DataFrame:
    """The lines of pieces.csv or ledger.csv with where each was made; nothing where nobody wrote it down.

    commit: that was checked out when the stage ran, "-dirty" where code or data differed from it.
    page: of the executed notebook, relative to reports/, at the cell that stored the number.
    ran: the notebooks that ran.
    """
    made = [_origin(ran, line) for line in told.to_dict("records")]
    return told.join(pd.DataFrame(made, told.index, ["commit", "page"]))


def _origin(ran: Sequence[Executed], line: Mapping[Hashable, Any]) -> tuple[str | None, str | None]:
    # Of several draws the first.
    found = next((one for one in ran if (one.scale, one.stage) == (line["scale"], line["stage"])), None)
    if pd.isna(line["mean"] if "mean" in line else line["ours"]) or found is None:
        return None, None
    call = "out.comparisons(" if line.get("interval") == STORED else "out.results("
    return found.run.get("commit") or None, found.anchor(call)

"""What a run changed: every number and outcome beside the committed ones."""

import subprocess
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from fgsynth.evaluate import tables
from fgsynth.evidence.pieces import Found
from fgsynth.evidence.verdicts import claims, pieces_of, pieces_table
from fgsynth.utils.errors import UserError

ROUNDING = 1e-4
"""Relative difference of numbers that rounding explains; a trained number differs by more, or not at all."""
SHOWN = 20
"""Different numbers that are printed one by one."""
PIECE = ["claim", "role", "difference", "benchmark"]


@dataclass(frozen=True)
class Changes:
    """text: what changed, for reading; outcomes: of pieces and claims, those that did, a line each."""

    text: str
    outcomes: list[str]


def changes(root: Path, revision: str = "HEAD") -> Changes:
    """Compare reports/ as it lies there with what a commit has.

    Numbers: tidy results by scale, benchmark, method, seed, metric and split. Outcomes: of every piece of
    evidence and claim, derived anew from the results that lie there.
    Raises UserError outside a git checkout, and for a commit without a report.
    """
    reports, paper = root / "reports", root / "data" / "paper"
    rows = tables.read_all(reports)
    found = Found(rows, tables.read_comparisons(reports), paper)
    pieces = pieces_of(found)
    numbers = _numbers(_committed(root, revision, "results"), rows)
    outcomes = [
        *_outcomes(_committed(root, revision, "pieces"), pieces_table(found, pieces), PIECE, ["outcome"]),
        *_outcomes(
            _committed(root, revision, "claims"),
            claims(paper, pieces),
            ["id"],
            ["as_printed", "with_controls"],
        ),
    ]
    told = outcomes or [f"All outcomes are those of {revision}."]
    return Changes("\n".join([*numbers, *told]), outcomes)


def _committed(root: Path, revision: str, name: str) -> pd.DataFrame:
    """A table of reports/ as it is in a commit."""
    command = ["git", "-C", str(root), "show", f"{revision}:./reports/{name}.csv"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UserError("git is not installed: it has the committed numbers to compare with.") from error
    if done.returncode:
        raise UserError(
            f"No committed reports/{name}.csv to compare with: {' '.join(done.stderr.split())}. "
            "Run this in a git clone, with --against COMMIT for another commit than the newest."
        )
    return pd.read_csv(StringIO(done.stdout))


def _numbers(old: pd.DataFrame, new: pd.DataFrame) -> list[str]:
    """How many numbers are equal, within rounding, different, new and gone, and the different ones."""
    key = [k for k in tables.KEY if k != "selection"]
    both = old.merge(new, on=key, how="outer", suffixes=("_old", "_new"), indicator=True)
    gone, fresh = (int((both["_merge"] == side).sum()) for side in ("left_only", "right_only"))
    both = both[both["_merge"] == "both"]
    a, b = both["value_old"].to_numpy(float), both["value_new"].to_numpy(float)
    # As they are stored, with six significant digits.
    equal = np.array([f"{x:.6g}" == f"{y:.6g}" for x, y in zip(a, b, strict=True)], dtype=bool)
    near = ~equal & np.isclose(a, b, rtol=ROUNDING, atol=0)
    different = both[~equal & ~near]
    lines = [
        f"{len(both)} numbers: {equal.sum()} equal, {near.sum()} within rounding, "
        f"{len(different)} different; {fresh} new, {gone} gone."
    ]
    for row in different.head(SHOWN).to_dict("records"):
        where = f"{row['scale']}, {row['benchmark']}, {row['method']}, {row['metric']}, seed {row['seed']}"
        lines.append(f"  {where}: {row['value_old']:.6g} committed, {row['value_new']:.6g} now")
    if len(different) > SHOWN:
        lines.append(f"  ... and {len(different) - SHOWN} more, see git diff reports")
    return lines


def _outcomes(old: pd.DataFrame, new: pd.DataFrame, key: list[str], columns: list[str]) -> list[str]:
    """A line per outcome that differs; one that is new or gone differs too."""
    lines = []
    before, after = (t.drop_duplicates(key).set_index(key)[columns] for t in (old, new))
    for where in before.index.union(after.index, sort=False):
        for column in columns:
            was, now = (
                str(t.at[where, column]) if where in t.index else "not there" for t in (before, after)
            )
            if was != now:
                name = where if isinstance(where, str) else ", ".join(where)
                lines.append(f"{name} ({column.replace('_', ' ')}): {was} committed, {now} now")
    return lines

"""The papers' claims: evidence, by their rules, and what it makes of each, a verdict."""

from pathlib import Path

import pandas as pd

from fgsynth.evidence.ledger import DIRECTION, FAILS, NOT_RUN, REPRODUCED, largest_scale
from fgsynth.evidence.rules import RULES, Evidence, Ours, Rule
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import read_csv

COLUMNS = ["id", "paper", "claim", "quantity", "printed", "where", "evidence", "verdict", "scale", "stage"]


def pieces(rule: Rule, results: pd.DataFrame, compared: pd.DataFrame) -> tuple[list[Evidence], str | None]:
    """A rule's evidence and its scale, the largest that was run; nothing and None where none was."""
    rows = largest_scale(results, rule.benchmark)
    if rows.empty:
        return [], None
    scale = str(rows["scale"].iloc[0])
    mine = compared[(compared["benchmark"] == rule.benchmark) & (compared["scale"] == scale)]
    return rule.evidence(Ours(rows, mine)), scale


def decide(rule: Rule, results: pd.DataFrame, compared: pd.DataFrame) -> tuple[str, str, str | None]:
    """(evidence, verdict, scale): every piece of evidence must be positive with an interval above zero."""
    evidence, scale = pieces(rule, results, compared)
    text = "; ".join(map(str, evidence))
    if scale is None or any(e.value is None for e in evidence):
        return text, NOT_RUN, scale
    if not all(e.value is not None and e.value.sign > 0 for e in evidence):
        return text, FAILS, scale
    return text, REPRODUCED if scale in rule.own_scales else DIRECTION, scale


def claims(folder: Path, results: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """One row per claim of data/paper/claims.csv with evidence and verdict.

    results: tidy; compared: comparisons of methods (`tables.COMPARED`).
    Raises UserError if the file is missing or a rule names a claim that is not in it.
    """
    path = folder / "claims.csv"
    needs = [{"printed": "value"}.get(c, c) for c in COLUMNS[:6]]
    table = read_csv(path, needs=needs, dtype=str).rename(columns={"value": "printed"})
    unknown = sorted(set(RULES) - set(table["id"]))
    if unknown:
        raise UserError(f"{path} has no claim {unknown[0]}, but there is a rule for it.")
    decided = [_row(claim_id, results, compared) for claim_id in table["id"]]
    return pd.concat([table, pd.DataFrame(decided)], axis=1)[COLUMNS]


def _row(claim_id: str, results: pd.DataFrame, compared: pd.DataFrame) -> dict[str, str | None]:
    rule = RULES.get(claim_id)
    evidence, verdict, scale = decide(rule, results, compared) if rule else ("", NOT_RUN, None)
    return {"evidence": evidence, "verdict": verdict, "scale": scale, "stage": rule.stage if rule else None}

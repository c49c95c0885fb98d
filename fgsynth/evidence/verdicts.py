"""The papers' claims: what their pieces of evidence decide, as printed and with our controls."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from fgsynth.config.names import parse
from fgsynth.config.stages import NOTEBOOKS
from fgsynth.evidence.ledger import OTHERS
from fgsynth.evidence.pieces import (
    CONTRADICTS,
    NOT_RUN,
    OUT_OF_RANGE,
    SUPPORTS,
    UNDECIDED,
    Comparison,
    Found,
    Piece,
)
from fgsynth.evidence.rules import RULES, Rule
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import read_csv

SUPPORTED, REPRODUCED, CONTRADICTED, MIXED = "supported", "reproduced", "contradicted", "mixed"
UNTESTED, NO_CONTROL = "cannot be tested here", "no control"
CLAIMS = ["id", "paper", "claim", "quantity", "printed", "where"]
PIECES = [
    *("claim", "role", "difference", "test", "benchmark", "scale", "outcome", "mean", "low", "high", "n"),
    *("interval", "margin", "printed", "size", "smaller", "stage", "notebook"),
]


def decide(pieces: Iterable[Piece]) -> str:
    """What pieces decide of a claim that predicts all of them.

    supported: all that can be tested support it (reproduced: at paper scale); contradicted: some contradict
    it and none supports it; mixed: some of each; undecided: else; cannot be tested here: none can.
    """
    tested = [p for p in pieces if p.outcome not in (NOT_RUN, OUT_OF_RANGE)]
    outcomes = {p.outcome for p in tested}
    if not tested:
        return UNTESTED
    if CONTRADICTS in outcomes:
        return MIXED if SUPPORTS in outcomes else CONTRADICTED
    if UNDECIDED in outcomes:
        return UNDECIDED
    return REPRODUCED if {p.scale for p in tested} == {"paper"} else SUPPORTED


def experiment(rule: Rule, pieces: Iterable[Piece]) -> str:
    """Whose experiment a claim's pieces are of: the paper's own at paper scale, else what stands for it."""
    scales = {p.scale for p in pieces if p.estimate is not None}
    if not scales:
        return "none"
    if rule.setup == "ours":
        return "a set-up of ours"
    return "the paper's own" if scales == {"paper"} else "the paper's protocol, shortened, on the mini world"


def pieces_of(found: Found) -> dict[str, list[Piece]]:
    """Every claim's pieces of evidence."""
    return {claim: [found.piece(asked) for asked in rule.asked(found)] for claim, rule in RULES.items()}


def stage_of(piece: Piece, others: dict[str, set[str]]) -> str:
    """The stage that makes a piece's rows; others: by benchmark the methods that stage `baselines` makes."""
    benchmark, asked = piece.asked.benchmark, piece.asked
    if isinstance(asked, Comparison):
        methods = {parse(asked.method)[0], parse(asked.reference)[0]}
        if methods & others.get(benchmark, set()):
            return OTHERS
    return benchmark if benchmark in NOTEBOOKS else "latent_probe"


def pieces_table(found: Found, pieces: dict[str, list[Piece]]) -> pd.DataFrame:
    """One row per piece: what was asked, its interval, its outcome, and where it was made."""
    others: dict[str, set[str]] = {}
    for table in found.printed.tables.values():
        others.setdefault(table.benchmark, set()).update(table.others)
    lines = []
    for claim, of in pieces.items():
        for piece in of:
            stage, e = stage_of(piece, others), piece.estimate
            line = {
                "claim": claim, "role": piece.asked.role, "difference": piece.asked.what,
                "test": piece.asked.test, "benchmark": piece.asked.benchmark, "scale": piece.scale,
                "outcome": piece.outcome, "margin": piece.margin or None, "printed": piece.printed,
                "size": piece.size, "smaller": "; ".join(map(_shown, piece.smaller)) or None,
                "stage": stage, "notebook": NOTEBOOKS[stage],
            }  # fmt: skip
            if e is not None:
                line |= {"mean": e.mean, "low": e.low, "high": e.high, "n": e.n, "interval": e.kind}
            lines.append(line)
    return pd.DataFrame(lines).reindex(columns=PIECES)


def _shown(piece: Piece) -> str:
    """A piece at a smaller scale."""
    return f"{piece.scale}: {piece.interval}, {piece.outcome}"


def claims(folder: Path, pieces: dict[str, list[Piece]]) -> pd.DataFrame:
    """One row per claim of data/paper/claims.csv, with what its pieces decide.

    Raises UserError if the file is missing or a rule names a claim that is not in it.
    """
    path = folder / "claims.csv"
    needs = [{"printed": "value"}.get(c, c) for c in CLAIMS]
    table = read_csv(path, needs=needs, dtype=str).rename(columns={"value": "printed"})
    if set(pieces) != set(table["id"]):
        odd = sorted(set(pieces) ^ set(table["id"]))[0]
        raise UserError(f"{path} and the rules in fgsynth/evidence/rules.py differ in claim {odd}.")
    decided = [_row(RULES[claim_id], pieces[claim_id]) for claim_id in table["id"]]
    return pd.concat([table[CLAIMS], pd.DataFrame(decided)], axis=1)


def _row(rule: Rule, pieces: list[Piece]) -> dict[str, str]:
    printed = [p for p in pieces if p.asked.role == "printed"]
    scales = dict.fromkeys(p.scale for p in pieces if p.scale and p.estimate is not None)
    return {
        "as_printed": decide(printed),
        "with_controls": _controlled(printed, [p for p in pieces if p.asked.role == "control"]),
        "experiment": experiment(rule, pieces),
        "scale": ", ".join(s for s in scales if s),
    }


def _controlled(printed: list[Piece], controls: list[Piece]) -> str:
    """What printed pieces and controls decide together, where a control could be tested."""
    if not controls:
        return NO_CONTROL
    alone = decide(controls)
    return alone if alone == UNTESTED else decide([*printed, *controls])

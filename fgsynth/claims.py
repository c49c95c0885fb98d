"""The papers' claims: each a rule that turns results into evidence, and evidence into a verdict."""

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from pathlib import Path

import pandas as pd

from fgsynth.errors import UserError, missing
from fgsynth.ledger import DIRECTION, FAILS, NOT_RUN, REPRODUCED, by_seed, largest_scale, over, paired
from fgsynth.metrics import Interval

COLUMNS = ["id", "paper", "claim", "quantity", "printed", "where", "evidence", "verdict", "scale", "stage"]


@dataclass(frozen=True)
class Evidence:
    """A difference over paired seeds that the claim says is positive; None where it was not run."""

    what: str
    value: Interval | None

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.what}: not run"
        return f"{self.what}: {self.value.mean:+.1f} ± {self.value.half_width:.1f} ({self.value.n} seeds)"


@dataclass(frozen=True)
class Rule:
    """How a claim is decided: its benchmark's rows -> evidence.

    own_scales: the scales at which the paper's own experiment is run in full; only there can a
    claim be reproduced, elsewhere its direction can hold.
    """

    stage: str
    benchmark: str
    evidence: Callable[[pd.DataFrame], list[Evidence]]
    own_scales: tuple[str, ...] = ("paper",)


def toy_plane(rows: pd.DataFrame) -> list[Evidence]:
    """C15: more minority samples, higher minority accuracy, a straighter boundary.

    Against no guidance: that synthesis alone does it would not be the claim.
    """
    share, accuracy, tilt = "minority_share", "minority_accuracy", "boundary_tilt"
    differences = [
        ("minority share of samples, points over unguided", share, "entropy", "unguided"),
        ("minority accuracy, points over real only", accuracy, "entropy", "real only"),
        ("minority accuracy, points over real + unguided", accuracy, "entropy", "unguided"),
        ("boundary tilt taken away from real only, degrees", tilt, "real only", "entropy"),
        ("boundary tilt taken away from real + unguided, degrees", tilt, "unguided", "entropy"),
    ]
    return [Evidence(what, paired(rows, metric, more, less)) for what, metric, more, less in differences]


def image_condition(rows: pd.DataFrame) -> list[Evidence]:
    """C7 in the mini world, where what a picture shows can be read off: nearer to the real world's shares."""
    text, both = "text", "text and image"
    return [
        Evidence(
            "total variation from the real world taken away, points", paired(rows, "distance", text, both)
        ),
        Evidence("recognised as the class, points over text", paired(rows, "recognised", both, text)),
    ]


MARGIN = 10
"""Points of recognisability that diversity may cost."""


def embedding_dropout(rows: pd.DataFrame) -> list[Evidence]:
    """C8 in the mini world: more combinations of the hidden factors in as many pictures, of the same class.

    The claim's other half, few-shot accuracy, needs a classifier trained on the pictures.
    """
    gained = paired(rows, "covered", "dropout 0.5", "dropout 0.0")
    cost = by_seed(rows, "dropout 0.5", "recognised") - by_seed(rows, "dropout 0.0", "recognised")
    return [
        Evidence("diversity only: hidden-factor combinations covered, over no dropout", gained),
        Evidence(f"recognised as the class, points over no dropout, + {MARGIN}", over(cost + MARGIN)),
    ]


HALF_WAY, SUFFICES = 50, 0.8
"""Guiding every 5th step is as good as guiding every step if samples go at least half of the way with it (%)
and the criterion rises by four fifths as much."""


def every_fifth(rows: pd.DataFrame) -> list[Evidence]:
    """C10, with the paper's exact gradient and the same total push; entropies in % of the largest, ln 24."""
    sparse, dense = "exact, every 5th", "exact, every step, w / 5"
    base, fifth, every = (100 * by_seed(rows, m, "entropy") / log(24) for m in ("base", sparse, dense))
    return [
        Evidence("entropy raised by every-step guidance, %", over(every - base)),
        Evidence(
            f"entropy raised beyond {SUFFICES} of that, %", over(fifth - base - SUFFICES * (every - base))
        ),
        Evidence(
            f"% of the way gone with every-step guidance, beyond {HALF_WAY}",
            over(by_seed(rows, sparse, "kept") - HALF_WAY),
        ),
    ]


RULES = {
    "C7": Rule("ablations", "ablations", image_condition, own_scales=()),
    "C8": Rule("ablations", "ablations", embedding_dropout, own_scales=()),
    "C10": Rule("ablations", "ablations", every_fifth, own_scales=()),
    "C15": Rule("toy_2d", "toy_2d", toy_plane, own_scales=("mini", "paper")),
}
"""Claims without a rule stand in the table as not run."""


def decide(rule: Rule, results: pd.DataFrame) -> tuple[str, str, str | None]:
    """(evidence, verdict, scale): every piece of evidence must be positive with an interval above zero."""
    rows = largest_scale(results, rule.benchmark)
    if rows.empty:
        return "", NOT_RUN, None
    scale, evidence = str(rows["scale"].iloc[0]), rule.evidence(rows)
    text = "; ".join(map(str, evidence))
    if any(e.value is None for e in evidence):
        return text, NOT_RUN, scale
    if not all(e.value is not None and e.value.sign > 0 for e in evidence):
        return text, FAILS, scale
    return text, REPRODUCED if scale in rule.own_scales else DIRECTION, scale


def claims(folder: Path, results: pd.DataFrame) -> pd.DataFrame:
    """One row per claim of data/paper/claims.csv with evidence and verdict.

    Raises UserError if the file is missing or a rule names a claim that is not in it.
    """
    path = folder / "claims.csv"
    if not path.is_file():
        raise missing(path)
    table = pd.read_csv(path, dtype=str).rename(columns={"value": "printed"})
    unknown = sorted(set(RULES) - set(table["id"]))
    if unknown:
        raise UserError(f"{path} has no claim {unknown[0]}, but there is a rule for it.")
    decided = [_row(claim_id, results) for claim_id in table["id"]]
    return pd.concat([table, pd.DataFrame(decided)], axis=1)[COLUMNS]


def _row(claim_id: str, results: pd.DataFrame) -> dict[str, str | None]:
    rule = RULES.get(claim_id)
    evidence, verdict, scale = decide(rule, results) if rule else ("", NOT_RUN, None)
    return {"evidence": evidence, "verdict": verdict, "scale": scale, "stage": rule.stage if rule else None}

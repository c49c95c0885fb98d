"""What the report says in Markdown: the blocks of README.md, and reports/README.md with claims and tables."""

from collections import Counter
from collections.abc import Mapping

import pandas as pd

from fgsynth.config import names
from fgsynth.evaluate.metrics import interval
from fgsynth.evidence import page
from fgsynth.evidence.ledger import largest_scale
from fgsynth.evidence.rules import RULES, Evidence
from fgsynth.evidence.verdicts import pieces

SHOWN = {
    "table1_imagenet_lt": ("imagenet_lt", ("overall", "few")),
    "table2_places_lt": ("places_lt", ("overall", "few")),
    "table3_nicopp": ("nicopp", ("average_accuracy", "worst_group_accuracy")),
}
GAINS = {
    "c15": ("toy_2d", "minority_accuracy", (names.PLANE_UNGUIDED, names.PLANE_FG["entropy"])),
    "c7": ("ablations", "recognised", (names.TEXT, names.TEXT_IMAGE)),
    "few": ("imagenet_lt_features", "few", (names.BALANCED_SOFTMAX, names.CHOSEN_SAMPLER)),
}
"""What the README's ladder says of a default run: mark, benchmark, metric, methods to compare."""
QUESTIONS = {
    "Does a classifier in the plane learn more from guided samples than from unguided ones": [
        ("C15", "minority accuracy, points over real + unguided"),
    ],
    "Does entropy feedback help on ImageNet-LT": [
        ("C6", "overall, points over the same sampler without feedback"),
        ("C6", "few, points over the same sampler without feedback"),
    ],
    "Does it beat earlier methods there": [
        ("C1", f"Few, points over {names.BALANCED_SOFTMAX}"),
        ("C1", f"Few, points over {names.FILL_UP}"),
    ],
    f"Is the worst group of NICO++ better off than with {names.CRT}, and than without feedback": [
        ("C4", f"worst-group accuracy, points over {names.CRT}"),
        ("C13", "w = 0.03 over 0, points"),
    ],
    "Do synthetic features help rare classes": [
        ("C17", f"few, points over {names.BALANCED_SOFTMAX} on real features"),
    ],
}
"""What the README answers, and the pieces of evidence, by claim, that answer it; one benchmark each."""
OUTCOMES = {1: "yes", 0: "not decided", -1: "no"}
"""By the side of zero on which an interval lies; 0 where it includes zero."""


def outcome(piece: Evidence) -> str:
    """What a piece says of its claim, by its interval alone: yes, no, not decided, or not run."""
    return "not run" if piece.value is None else OUTCOMES[piece.value.sign]


def blocks(rows: pd.DataFrame, compared: pd.DataFrame) -> dict[str, str]:
    """The blocks of README.md by mark, made from tidy results and paired comparisons."""
    found = {claim: pieces(rule, rows, compared) for claim, rule in RULES.items()}
    return {**gains(rows), "tally": tally(found), "answers": answers(found)}


Pieces = Mapping[str, tuple[list[Evidence], str | None]]
"""Evidence and scale by claim, as `verdicts.pieces` returns them."""


def tally(found: Pieces) -> str:
    """How many pieces of evidence have each outcome, and the claims that all of theirs speak for."""
    counts = Counter(outcome(piece) for evidence, _ in found.values() for piece in evidence)
    whole = [claim for claim, (evidence, _) in found.items() if {outcome(e) for e in evidence} == {"yes"}]
    each = ", ".join(f"{counts[name]} {name}" for name in ("yes", "not decided", "no", "not run"))
    return f"{counts.total()} differences: {each}; only yes for {', '.join(whole) or 'no claim'}"


def answers(found: Pieces) -> str:
    """A sentence per question: claims and scale, and of each piece whether its interval decides."""
    lines = []
    for question, wanted in QUESTIONS.items():
        told, where = [], list(dict.fromkeys(claim for claim, _ in wanted))
        for claim, what in wanted:
            evidence, _ = found[claim]
            piece = {e.what: e for e in evidence}[what] if evidence else Evidence(what, None)
            told.append(f"**{outcome(piece)}**: {piece}")
        scale = found[where[0]][1]
        where += [f"scale {scale}"] * bool(scale)
        lines.append(f"- {question} ({', '.join(where)})? {'; '.join(told)}.")
    return "\n".join(lines)


def gains(rows: pd.DataFrame) -> dict[str, str]:
    """Means of the methods of GAINS by mark, as "64.3 % -> 81.6 %"; nothing of what was not run."""
    told = {}
    for mark, (benchmark, metric, methods) in GAINS.items():
        mine = largest_scale(rows, benchmark)
        mean = mine[mine["metric"] == metric].groupby("method")["value"].mean()
        if set(methods) <= set(mean.index):
            told[mark] = " -> ".join(f"{mean[method]:.1f} %" for method in methods)
    return told


def results_page(book: pd.DataFrame, verdicts: pd.DataFrame, rows: pd.DataFrame) -> str:
    """reports/README.md: every claim with evidence and verdict, and FG tables 1 to 3 printed beside ours."""
    lines = [
        f"| {c['id']} | {c['claim']} | {c['quantity']}: {c['printed']} ({c['where']}) "
        f"| {c['evidence'].replace('; ', '<br>')} | {c['verdict']}{c['scale'] and ', ' + c['scale']} |"
        for c in verdicts.fillna("").to_dict("records")
    ]
    return page.render(
        "results.md", standing=standing(verdicts), claims="\n".join(lines), tables=tables(book, rows)
    )


def standing(verdicts: pd.DataFrame) -> str:
    """Which claims have each verdict, as "`reproduced` 1 (C15), `does not hold` 2 (C1, C2)".

    verdicts: one row per claim, columns id and verdict.
    """
    ids = (
        verdicts.groupby("verdict")["id"]
        .agg(list)
        .sort_values(key=lambda found: found.str.len(), kind="stable")
    )
    return ", ".join(f"`{verdict}` {len(found)} ({', '.join(found)})" for verdict, found in ids.items())


def tables(book: pd.DataFrame, rows: pd.DataFrame) -> str:
    """What was run of FG tables 1 to 3, printed beside ours, as Markdown; "-" where nothing is printed.

    Without the points of sweeps, which have figures.
    """
    lines: list[str] = []
    for name, (benchmark, columns) in SHOWN.items():
        mine = largest_scale(rows, benchmark)
        swept = mine["method"].map(lambda method: names.parse(method)[1] is not None).astype(bool)
        mine = mine[mine["metric"].isin(columns) & ~swept]
        if mine.empty:
            continue
        printed = book[book["table"] == name].set_index(["method", "column"])
        whose = ("printed", f"ours ({mine['scale'].iloc[0]})")
        titles = [f"{column.replace('_', ' ')}, {who}" for column in columns for who in whose]
        lines += ["", f"| {benchmark} | {' | '.join(titles)} |", "| --- |" + " ---: |" * len(titles)]
        for method, of_method in mine.groupby("method", sort=False):
            cells = [c for column in columns for c in _cells(printed, of_method, str(method), column)]
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines).strip()


def _cells(printed: pd.DataFrame, ours: pd.DataFrame, method: str, column: str) -> tuple[str, str]:
    value = interval(ours.loc[ours["metric"] == column, "value"].to_numpy(float))
    mine = f"{value.mean:.1f} ± {value.half_width:.1f}"
    if (method, column) not in printed.index:
        return "-", mine
    number, verdict = printed.loc[[(method, column)]][["printed", "verdict"]].to_numpy()[0]
    return f"{number:.1f}", f"{mine}, {verdict}"

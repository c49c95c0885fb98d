"""What the report says in Markdown: the blocks of README.md, and reports/README.md with claims and tables."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from fgsynth.config import names
from fgsynth.evidence import page
from fgsynth.evidence.ledger import largest_scale, over_draws
from fgsynth.evidence.pieces import (
    CONTRADICTS,
    NOT_RUN,
    OUT_OF_RANGE,
    OUTCOMES,
    SUPPORTS,
    UNDECIDED,
    Comparison,
    Found,
    Piece,
)
from fgsynth.evidence.questions import README

Line = Mapping[Hashable, Any]
"""A line of pieces.csv."""
SHOWN = {
    "table1_imagenet_lt": ("imagenet_lt", ("overall", "few")),
    "table2_places_lt": ("places_lt", ("overall", "few")),
    "table3_nicopp": ("nicopp", ("average_accuracy", "worst_group_accuracy")),
}
TITLES = {
    "imagenet_lt": "ImageNet-LT",
    "places_lt": "Places-LT",
    "nicopp": "NICO++",
    "ablations": "ImageNet-LT",
    "toy_2d": "plane",
    "imagenet_lt_features": "ImageNet-LT",
    "digits_lt": "digits",
    "places_lt_features": "Places-LT",
    "beyond_imagenet_lt": "ImageNet-LT",
    "beyond_nicopp": "NICO++",
}
"""Benchmarks of the answers, in words."""
WORDS = {
    SUPPORTS: "yes",
    CONTRADICTS: "no",
    UNDECIDED: "undecided",
    OUT_OF_RANGE: OUT_OF_RANGE,
    NOT_RUN: NOT_RUN,
}


def blocks(found: Found, pieces: dict[str, list[Piece]], verdicts: pd.DataFrame) -> dict[str, str]:
    """The blocks of README.md by mark; verdicts: one row per claim, as `verdicts.claims`."""
    told = {"tally": tally(pieces), "answers": "\n".join(f"- {line}" for line in answers(found))}
    return {**told, **{who: standing(verdicts, who) for who in ("as_printed", "with_controls")}}


def tally(pieces: Mapping[str, list[Piece]]) -> str:
    """How many pieces of evidence, by claim, have each outcome."""
    counts = Counter(piece.outcome for of in pieces.values() for piece in of)
    each = ", ".join(f"{counts[name]} {name}" for name in OUTCOMES)
    return f"{counts.total()} differences: {each}"


def answers(found: Found) -> list[str]:
    """A sentence per question: each benchmark's answer in points, and its scale."""
    return [f"{one.text}: {'; '.join(_answer(of, found.piece(of)) for of in one.asked)}." for one in README]


def _answer(asked: Comparison, piece: Piece) -> str:
    shown = f" {piece.interval} ({piece.scale})" if piece.estimate else ""
    return f"{title(piece)} {metric(asked)} **{WORDS[piece.outcome]}**{shown}"


def metric(asked: Comparison) -> str:
    """What is measured, in words."""
    return asked.metric.replace("_accuracy", "").replace("_", " ")


def title(piece: Piece) -> str:
    """The benchmark of a piece."""
    return called(TITLES[piece.asked.benchmark], piece.scale)


def called(benchmark: str, scale: str | None) -> str:
    """A benchmark by its name in words; below scale paper those of the papers' names are the mini world's."""
    if not benchmark[0].isupper():
        return f"the {benchmark}"
    return benchmark if scale == "paper" else f"{benchmark} mini"


def sentence(asked: Sequence[Comparison], pieces: Sequence[Piece]) -> str:
    """What pieces of a question decide, without numbers: "M over R: *yes* on A and B; *undecided* on C".

    With each benchmark its reference, where they differ.
    """
    where: dict[str, list[str]] = {}
    references = {comparison.reference for comparison in asked}
    alike = len(references) == 1
    for comparison, piece in zip(asked, pieces, strict=True):
        told = title(piece) if alike else f"{title(piece)} (over {comparison.reference})"
        where.setdefault(WORDS[piece.outcome], []).append(told)
    told = "; ".join(f"*{word}* on {' and '.join(of)}" for word, of in where.items())
    return f"{asked[0].method}{f' over {references.pop()}' if alike else ''}: {told}."


def reading(found: Found, pieces: Mapping[str, list[Piece]]) -> list[str]:
    """How claims and pieces are to be read, a line of Markdown each; how much chance would decide."""
    tested = {
        (p.asked.benchmark, p.asked.what): p.estimate
        for of in pieces.values()
        for p in of
        if p.estimate and p.in_range
    }
    text = page.render(
        "reading.md",
        floor=f"{found.margins.floor:g}",
        ceiling=f"{found.margins.ceiling:g}",
        intervals=len(tested),
        off_zero=sum(e.low > 0 or e.high < 0 for e in tested.values()),
        by_chance=round(0.05 * len(tested)),
    )
    return [" ".join(line.split()) for line in text.removeprefix("- ").split("\n- ")]


def results_page(
    found: Found,
    book: pd.DataFrame,
    verdicts: pd.DataFrame,
    shown: Mapping[str, list[Line]],
    tally: str,
    reading: list[str],
) -> str:
    """reports/README.md: every claim, what its pieces decide, and FG tables 1 to 3 beside ours.

    shown: by claim the lines of pieces.csv, with interval and prediction as text.
    """
    lines = [
        f"| [{c['id']}](#{c['id'].lower()}) | {c['claim']} | {c['as_printed']} | {c['with_controls']} "
        f"| {c['experiment']} |"
        for c in verdicts.to_dict("records")
    ]
    return page.render(
        "results.md",
        printed=standing(verdicts, "as_printed"),
        controls=standing(verdicts, "with_controls"),
        tally=tally,
        reading="\n".join(f"- {line}" for line in reading),
        claims="\n".join(lines),
        each="\n\n".join(_section(c, shown[c["id"]]) for c in verdicts.to_dict("records")),
        tables=tables(book, found.results),
    )


def _section(claim: Mapping[Hashable, str], lines: list[Line]) -> str:
    """A claim with what is printed, and a line per piece."""
    head = (
        f"### {claim['id']}\n\n{claim['claim']} ({claim['where']}; {claim['quantity']}: {claim['printed']})"
    )
    return f"{head}\n\n" + "\n".join(map(_line, lines))


def _line(line: Line) -> str:
    """A piece: outcome, role, benchmark, difference, whether the interval holds the printed size, cell."""
    told = f"- **{line['outcome']}** ({line['role']}, {line['benchmark']}): {line['difference']}: "
    predicted = f", predicted {line['predicted']}" if line["test"] != "greater" else ""
    over = f", {line['over']}" if line["over"] else ""
    size = f"; printed {line['printed']:+.3g}, which the interval {line['size']}" if line["size"] else ""
    where = f" ([cell]({line['page']}))" if line["page"] else ""
    smaller = f"; {line['smaller']}" if line["smaller"] else ""
    return f"{told}{line['shown']}{over}{predicted}{size}{smaller}{where}"


def standing(verdicts: pd.DataFrame, column: str) -> str:
    """Which claims have each verdict, as "`supported` 1 (C15), `undecided` 2 (C1, C2)", the rarest first."""
    ids = (
        verdicts.groupby(column)["id"].agg(list).sort_values(key=lambda found: found.str.len(), kind="stable")
    )
    return ", ".join(f"`{verdict}` {len(found)} ({', '.join(found)})" for verdict, found in ids.items())


def tables(book: pd.DataFrame, rows: pd.DataFrame) -> str:
    """What was run of FG tables 1 to 3, printed beside ours, as Markdown; "-" where nothing is printed.

    Without the points of sweeps, which have figures. Cells of another scale than the heading's name it.
    """
    lines: list[str] = []
    for name, (benchmark, columns) in SHOWN.items():
        mine = largest_scale(rows, benchmark)
        swept = mine["method"].map(lambda method: names.parse(method)[1] is not None).astype(bool)
        mine = mine[mine["metric"].isin(columns) & ~swept]
        if mine.empty:
            continue
        printed = book[book["table"] == name].set_index(["method", "column"])
        scale = str(mine["scale"].iloc[0])
        whose = ("printed", f"ours ({scale})")
        titles = [f"{column.replace('_', ' ')}, {who}" for column in columns for who in whose]
        lines += ["", f"| {benchmark} | {' | '.join(titles)} |", "| --- |" + " ---: |" * len(titles)]
        for method, of_method in mine.groupby("method", sort=False):
            cells = [c for column in columns for c in _cells(printed, of_method, str(method), column)]
            other = of_method["scale"].iloc[0]
            lines.append(f"| {method}{f' ({other})' if other != scale else ''} | {' | '.join(cells)} |")
    return "\n".join(lines).strip()


def _cells(printed: pd.DataFrame, ours: pd.DataFrame, method: str, column: str) -> tuple[str, str]:
    mine = ours[ours["metric"] == column]
    value = over_draws(mine["value"], mine["draw"])
    # Of two seeds Student's half-width says nothing.
    shown = f"{value.mean:.1f} " + (f"± {value.half_width:.1f}" if value.n > 2 else f"(n = {value.n})")
    if (method, column) not in printed.index:
        return "-", shown
    number = printed.loc[[(method, column)]]["printed"].to_numpy(float)[0]
    return f"{number:.1f}", shown

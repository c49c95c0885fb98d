"""The report: results.csv, ledger.csv, claims.csv and index.html, from stored files alone."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from fgsynth.config.stages import NOTEBOOKS
from fgsynth.cost import cards
from fgsynth.evaluate import tables as results
from fgsynth.evaluate.metrics import interval
from fgsynth.evidence import page
from fgsynth.evidence.ledger import NOT_RUN, largest_scale, ledger, tables
from fgsynth.evidence.verdicts import claims
from fgsynth.utils import paths


@dataclass(frozen=True)
class Figure:
    """A figure of the report; paths relative to reports/."""

    image: str
    data: str
    caption: str
    width: int
    height: int


def build(root: Path) -> None:
    """Derive and write all four files. Raises UserError naming a damaged or missing input."""
    reports, printed = root / "reports", root / "data" / "paper"
    rows = results.read_all(reports / "results")
    compared = results.read_comparisons(reports / "comparisons")
    book, verdicts = ledger(printed, rows), claims(printed, rows, compared)
    paths.write_text(reports / "results.csv", results.to_csv(rows))
    paths.write_text(reports / "ledger.csv", book.to_csv(index=False, float_format="%.6g"))
    paths.write_text(reports / "claims.csv", verdicts.to_csv(index=False))
    counts = {f"claims {name}": int(n) for name, n in verdicts["verdict"].value_counts().sort_index().items()}
    counts |= {f"numbers {name}": int(n) for name, n in book["verdict"].value_counts().sort_index().items()}
    paths.write_text(reports / "metrics" / "report.json", json.dumps(counts, indent=2))
    cost = reports / "benchmark" / "cost.txt"
    index = page.render(
        "index.html",
        claims=verdicts.fillna("").to_dict("records"),
        summary=verdicts["verdict"].value_counts().to_dict(),
        stages=[_stage(reports, stage, name, rows) for stage, name in NOTEBOOKS.items()],
        cost=cost.read_text(encoding="utf-8") if cost.is_file() else "",
        true_size=_measured(reports / "true_size" / "true_size.csv"),
        tables=[_table(book, name, t.title, t.stage) for name, t in tables(printed).items()],
    )
    paths.write_text(reports / "index.html", index)
    readme = root / "README.md"
    if readme.is_file():
        text = readme.read_text(encoding="utf-8")
        for mark, block in (("ledger", markdown(book, rows)), *cards.markdown(root)):
            text = with_block(text, mark, block)
        for mark, words in {**gains(rows), "verdicts": standing(verdicts)}.items():
            text = with_block(text, mark, words, "")
        paths.write_text(readme, text)


SHOWN = {
    "table1_imagenet_lt": ("imagenet_lt", ("overall", "few")),
    "table2_places_lt": ("places_lt", ("overall", "few")),
    "table3_nicopp": ("nicopp", ("average_accuracy", "worst_group_accuracy")),
}
VARIED = r"^beyond, |, (?:amount|weight|w) [0-9.]+$"
"""Ideas beyond the papers, which have a table of their own, and sweeps, which have figures."""


def markdown(book: pd.DataFrame, rows: pd.DataFrame) -> str:
    """What was run of FG tables 1 to 3, printed beside ours, as Markdown; "-" where nothing is printed."""
    lines: list[str] = []
    for name, (benchmark, columns) in SHOWN.items():
        mine = largest_scale(rows, benchmark)
        mine = mine[mine["metric"].isin(columns) & ~mine["method"].str.contains(VARIED)]
        if mine.empty:
            continue
        printed = book[book["table"] == name].set_index(["row", "column"])
        whose = ("printed", f"ours ({mine['scale'].iloc[0]})")
        titles = [f"{column.replace('_', ' ')}, {who}" for column in columns for who in whose]
        lines += ["", f"| {benchmark} | {' | '.join(titles)} |", "| --- |" + " ---: |" * len(titles)]
        for method, of_method in mine.groupby("method", sort=False):
            cells = [c for column in columns for c in _cells(printed, of_method, str(method), column)]
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines).strip()


GAINS = {
    "c15": ("toy_2d", "minority_accuracy", ("unguided", "entropy")),
    "c7": ("ablations", "recognised", ("text", "text and image")),
    "few": ("imagenet_lt_features", "few", ("balanced softmax", "sampler chosen on validation")),
}
"""What the README says of a default run in its own words: mark, benchmark, metric, methods to compare."""


def gains(rows: pd.DataFrame) -> dict[str, str]:
    """Means of the methods of GAINS by mark, as "64.3 % -> 81.6 %"; nothing of what was not run."""
    told = {}
    for mark, (benchmark, metric, methods) in GAINS.items():
        mine = largest_scale(rows, benchmark)
        mean = mine[mine["metric"] == metric].groupby("method")["value"].mean()
        if set(methods) <= set(mean.index):
            told[mark] = " -> ".join(f"{mean[method]:.1f} %" for method in methods)
    return told


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


def _cells(printed: pd.DataFrame, ours: pd.DataFrame, method: str, column: str) -> tuple[str, str]:
    value = interval(ours.loc[ours["metric"] == column, "value"].to_numpy(float))
    there = (method, column) in printed.index
    return (
        f"{float(printed.loc[(method, column), 'printed']):.1f}" if there else "-",  # type: ignore[arg-type]
        f"{value.mean:.1f} ± {value.half_width:.1f}",
    )


def with_block(text: str, mark: str, block: str, gap: str = "\n\n") -> str:
    """A text with what stands between <!--mark--> and <!--/mark--> replaced; without these as it is.

    gap: around the block, none within a line.
    """
    before, after = f"<!--{mark}-->", f"<!--/{mark}-->"
    start, end = text.find(before), text.find(after)
    if start < 0 or end < start:
        return text
    return f"{text[: start + len(before)]}{gap}{block}{gap}{text[end:]}"


def _stage(reports: Path, stage: str, notebook: str, rows: pd.DataFrame) -> dict[str, object]:
    figures = []
    for image in sorted((reports / "figures" / stage).glob("*.png")):
        with Image.open(image) as opened:
            caption, (width, height) = opened.text.get("Description", ""), opened.size  # type: ignore[attr-defined]
        relative = image.relative_to(reports)
        figures.append(Figure(str(relative), str(relative.with_suffix(".csv")), caption, width, height))
    file = reports / "results" / f"{stage}.csv"
    benchmarks = set(pd.read_csv(file)["benchmark"]) if file.is_file() else set()
    mine = rows[rows["benchmark"].isin(benchmarks)]
    if len(benchmarks) > 1:
        mine = mine.assign(method=mine["benchmark"] + ": " + mine["method"])
    return {
        "name": stage,
        "notebook": notebook,
        "figures": figures,
        "scale": ", ".join(mine["scale"].unique()),
        "summary": summary(mine),
        "selection": "; ".join(mine["selection"].unique()),
        "split": "; ".join(mine["split"].unique()),
    }


def _measured(path: Path) -> list[dict[str, str]]:
    """Rows of the table of true size as text, none where nothing was measured."""
    if not path.is_file():
        return []
    table = pd.read_csv(path).dropna(axis=1, how="all")
    shown = table.map(lambda x: x if isinstance(x, str) else "-" if pd.isna(x) else f"{x:.3g}")
    return [{str(k): str(v) for k, v in row.items()} for row in shown.to_dict("records")]


def summary(rows: pd.DataFrame) -> list[dict[str, str]]:
    """Mean and 95 % half-width over seeds, one record per method, one key per metric."""
    records = []
    for method, of_method in rows.groupby("method", sort=False):
        cells = {
            str(metric): str(interval(g["value"].to_numpy(float)))
            for metric, g in of_method.groupby("metric", sort=False)
        }
        records.append({"method": str(method), **cells, "seeds": str(of_method["seed"].nunique())})
    return records


def _table(book: pd.DataFrame, name: str, title: str, stage: str) -> dict[str, object]:
    mine = book[book["table"] == name]
    columns = list(mine["column"].unique())
    lines = []
    for row, cells in mine.groupby("row", sort=False):
        by_column = {c["column"]: c for c in cells.astype(object).fillna("").to_dict("records")}
        notes = [n for n in cells["note"].dropna().unique() if n]
        lines.append({"row": row, "cells": [by_column.get(c) for c in columns], "note": " ".join(notes)})
    run = bool((mine["verdict"] != NOT_RUN).any())
    return {"name": name, "title": title, "stage": stage, "columns": columns, "lines": lines, "run": run}

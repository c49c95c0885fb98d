"""The report: results.csv, ledger.csv, claims.csv, index.html and README.md, from stored files alone."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from fgsynth.config.stages import NOTEBOOKS
from fgsynth.evaluate import tables as results
from fgsynth.evaluate.metrics import interval
from fgsynth.evidence import markdown, page
from fgsynth.evidence.ledger import NOT_RUN, ledger, tables
from fgsynth.evidence.verdicts import claims
from fgsynth.utils import paths
from fgsynth.utils.blocks import fill


@dataclass(frozen=True)
class Figure:
    """A figure of the report; paths relative to reports/."""

    image: str
    data: str
    caption: str
    width: int
    height: int


def build(root: Path) -> None:
    """Write all files of the report, and the root's README.md's blocks.

    Raises UserError naming a damaged or missing input.
    """
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
        cost=paths.read_text(cost) if cost.is_file() else "",
        true_size=_measured(reports / "true_size" / "true_size.csv"),
        tables=[_table(book, name, t.title, t.stage) for name, t in tables(printed).items()],
    )
    paths.write_text(reports / "index.html", index)
    paths.write_text(reports / "README.md", markdown.results_page(book, verdicts, rows))
    fill(root / "README.md", markdown.blocks(rows, compared))


def _stage(reports: Path, stage: str, notebook: str, rows: pd.DataFrame) -> dict[str, object]:
    figures = []
    for image in sorted((reports / "figures" / stage).glob("*.png")):
        with Image.open(image) as opened:
            caption, (width, height) = opened.text.get("Description", ""), opened.size  # type: ignore[attr-defined]
        relative = image.relative_to(reports)
        figures.append(Figure(str(relative), str(relative.with_suffix(".csv")), caption, width, height))
    file = reports / "results" / f"{stage}.csv"
    benchmarks = set(paths.read_csv(file)["benchmark"]) if file.is_file() else set()
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
    table = paths.read_csv(path).dropna(axis=1, how="all")
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

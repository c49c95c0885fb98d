"""The report: ledger, order, pieces and claims as CSV, index.html and README.md, from stored files."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from fgsynth.config.stages import NOTEBOOKS
from fgsynth.evaluate import tables as results
from fgsynth.evaluate.metrics import interval
from fgsynth.evidence import markdown, page
from fgsynth.evidence.ledger import NOT_RUN, SCALES, agreement, ledger
from fgsynth.evidence.markdown import Line
from fgsynth.evidence.pieces import Found, Piece
from fgsynth.evidence.provenance import with_origins
from fgsynth.evidence.verdicts import claims, pieces_of, pieces_table
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
    rows = results.read_all(reports)
    found = Found(rows, results.read_comparisons(reports), printed)
    book, order, pieces = ledger(found.printed, rows), agreement(found.printed, rows), pieces_of(found)
    told, verdicts = with_origins(pieces_table(found, pieces), reports), claims(printed, pieces)
    shown, tally, reading = _shown(told, pieces), markdown.tally(pieces), markdown.reading(found, pieces)
    paths.write_text(reports / "results.csv", results.to_csv(rows.drop(columns="draw")))
    for name, table in {"ledger": book, "order": order, "pieces": told, "claims": verdicts}.items():
        paths.write_text(reports / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))
    paths.write_text(reports / "report.json", json.dumps(_counts(told, verdicts, book), indent=2))
    cost = reports / "benchmark" / "cost.txt"
    index = page.render(
        "index.html",
        claims=verdicts.fillna("").to_dict("records"),
        pieces=shown,
        reading=reading,
        answers=markdown.answers(found),
        tally=tally,
        standing={who: markdown.standing(verdicts, who) for who in ("as_printed", "with_controls")},
        stages=[_stage(reports, stage, name, rows) for stage, name in NOTEBOOKS.items()],
        cost=paths.read_text(cost) if cost.is_file() else "",
        true_size=_measured(reports / "true_size" / "true_size.csv"),
        tables=[_table(book, order, name, t.title, t.stage) for name, t in found.printed.tables.items()],
    )
    paths.write_text(reports / "index.html", index)
    results_page = markdown.results_page(found, book, verdicts, shown, tally, reading)
    paths.write_text(reports / "README.md", results_page)
    fill(root / "README.md", markdown.blocks(found, pieces, verdicts))


def _counts(told: pd.DataFrame, verdicts: pd.DataFrame, book: pd.DataFrame) -> dict[str, int]:
    """Numbers for `dvc metrics show`: pieces by outcome, claims by verdict, printed numbers by status."""
    of = {
        "pieces": told["outcome"],
        "as printed": verdicts["as_printed"],
        "with controls": verdicts["with_controls"],
        "numbers": book["status"],
    }
    return {f"{who} {k}": int(n) for who, x in of.items() for k, n in x.value_counts().sort_index().items()}


def _shown(told: pd.DataFrame, pieces: dict[str, list[Piece]]) -> dict[str, list[Line]]:
    """The lines of pieces.csv by claim, each with interval, what that is over and prediction as text."""
    lines = iter(told.astype(object).fillna("").to_dict("records"))

    def line(piece: Piece) -> Line:
        return {**next(lines), "shown": piece.interval, "over": piece.over, "predicted": piece.predicted}

    return {claim: [line(piece) for piece in of] for claim, of in pieces.items()}


def _stage(reports: Path, stage: str, notebook: str, rows: pd.DataFrame) -> dict[str, object]:
    """What a stage made at the largest scale that it was run at."""
    scale = next((s for s in SCALES if (reports / s / stage / "results.csv").is_file()), None)
    if scale is None:
        return {"name": stage, "notebook": notebook, "summary": []}
    folder, figures = reports / scale / stage, []
    for image in sorted((folder / "figures").glob("*.png")):
        with Image.open(image) as opened:
            caption, (width, height) = opened.text.get("Description", ""), opened.size  # type: ignore[attr-defined]
        relative = image.relative_to(reports)
        figures.append(Figure(str(relative), str(relative.with_suffix(".csv")), caption, width, height))
    benchmarks = set(paths.read_csv(folder / "results.csv")["benchmark"])
    mine = rows[rows["benchmark"].isin(benchmarks) & (rows["scale"] == scale)]
    if len(benchmarks) > 1:
        mine = mine.assign(method=mine["benchmark"] + ": " + mine["method"])
    return {
        "name": stage,
        "notebook": notebook,
        "page": f"{scale}/{stage}/{notebook}.html",
        "figures": figures,
        "scale": scale,
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


def _table(book: pd.DataFrame, order: pd.DataFrame, name: str, title: str, stage: str) -> dict[str, object]:
    mine = book[book["table"] == name]
    columns = list(mine["column"].unique())
    lines = []
    for row, cells in mine.groupby("row", sort=False):
        by_column = {c["column"]: c for c in cells.astype(object).fillna("").to_dict("records")}
        notes = [n for n in cells["note"].dropna().unique() if n]
        lines.append({"row": row, "cells": [by_column.get(c) for c in columns], "note": " ".join(notes)})
    run = bool((mine["status"] != NOT_RUN).any())
    ranked = order[order["table"] == name].set_index("column").to_dict("index")
    return {"name": name, "title": title, "stage": stage, "columns": columns, "lines": lines, "run": run,
            "order": [ranked.get(c) for c in columns]}  # fmt: skip

"""The report: ledger, order, pieces and claims as CSV, the site and README.md, from stored files."""

import json
from pathlib import Path

import pandas as pd

from fgsynth.evaluate import tables as results
from fgsynth.evidence import markdown, workflow
from fgsynth.evidence.ledger import agreement, ledger
from fgsynth.evidence.markdown import Line
from fgsynth.evidence.notebooks import executed
from fgsynth.evidence.pieces import Found, Piece
from fgsynth.evidence.provenance import Origin, Origins, with_origins
from fgsynth.evidence.site import Site
from fgsynth.evidence.verdicts import claims, pieces_of, pieces_table
from fgsynth.utils import paths
from fgsynth.utils.blocks import fill


def build(root: Path) -> None:
    """Write all files of the report, and the root's README.md's blocks.

    Raises UserError naming a damaged or missing input.
    """
    reports, printed = root / "reports", root / "data" / "paper"
    rows, origins = results.read_all(reports), Origins(executed(reports))
    found = Found(rows, results.read_comparisons(reports), printed)
    order, pieces = agreement(found.printed, rows), pieces_of(found)
    verdicts, book = claims(printed, pieces), ledger(found.printed, rows)
    book = with_origins(book, _of_book(book, found, origins))
    of_pieces = [origins.of_piece(piece) for of in pieces.values() for piece in of]
    told = with_origins(pieces_table(found, pieces), of_pieces)
    shown = _shown(told, pieces)
    tally, reading = markdown.tally(pieces), markdown.reading(found, pieces)
    paths.write_text(reports / "results.csv", results.to_csv(rows.drop(columns="draw")))
    for name, table in {"ledger": book, "order": order, "pieces": told, "claims": verdicts}.items():
        kept = table.drop(columns="origin", errors="ignore")
        paths.write_text(reports / f"{name}.csv", kept.to_csv(index=False, float_format="%.6g"))
    paths.write_text(reports / "report.json", json.dumps(_counts(told, verdicts, book), indent=2))
    paths.write_text(reports / "ro-crate-metadata.json", workflow.crate(root, origins.ran))
    Site(root, found, book, order, verdicts, pieces, shown, origins).write()
    results_page = markdown.results_page(found, book, verdicts, shown, tally, reading)
    paths.write_text(reports / "README.md", results_page)
    took = sum(one.run.get("seconds", 0) for one in origins.ran if one.scale == "mini")
    fill(root / "README.md", markdown.blocks(found, pieces, verdicts) | {"minutes": f"{took / 60:.0f} min"})


def _of_book(book: pd.DataFrame, found: Found, origins: Origins) -> list[Origin | None]:
    """Where each number of ours in the ledger was made."""
    benchmark = {name: table.benchmark for name, table in found.printed.tables.items()}
    keys = zip(book["scale"], book["table"].map(benchmark), book["method"], book["column"], strict=True)
    return [origins.of_number(*key) for key in keys]


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
    """The lines of pieces.csv by claim, with origin, and interval, what it is over and prediction as text."""
    lines = iter(told.astype(object).fillna("").to_dict("records"))

    def line(piece: Piece) -> Line:
        return {**next(lines), "shown": piece.interval, "over": piece.over, "predicted": piece.predicted}

    return {claim: [line(piece) for piece in of] for claim, of in pieces.items()}

"""Where numbers were made: lines of files, split, selection rule, seeds, commit, cell of the notebook."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from fgsynth.evaluate.tables import COLUMNS, COMPARED
from fgsynth.evidence.notebooks import Executed
from fgsynth.evidence.pieces import STORED, Computed, Piece
from fgsynth.utils.paths import read_csv

RESULTS, COMPARISONS = "results", "comparisons"
SHOWS, STORES = "shows it", "stores it without showing it"
SHOWS_DRAW = "shows that of one draw"
SHOWS_TERMS = "shows the numbers that it is the difference of"
"""What a cell does with a number; of several draws, with those of its own."""
ORIGIN = ["split", "selection", "seed", "source", "commit", "page", "cell"]
_NUMBER = re.compile(r"[-+]?\d+(?:\.(\d+))?(?![\w.])")


Number = tuple[frozenset[str], str, float]
"""Methods that the row of a table must have, the metric, and the value."""
Way = tuple[str, list[Number]]
"""What a cell does that shows all of these."""


@dataclass(frozen=True)
class Place:
    """Lines of a file that a number is computed from; page: address of a cell; cell: what that does."""

    run: Executed
    file: str
    lines: str
    page: str
    cell: str


@dataclass(frozen=True)
class Origin:
    """Where a number was made; split, selection, seed: as its rows have them.

    commits: that were checked out when the stages ran, "-dirty" where code or data differed from them.
    """

    split: str
    selection: str
    seed: str
    commits: tuple[str, ...]
    places: tuple[Place, ...]

    @property
    def rule(self) -> str:
        """All but the places, as text."""
        told = f"split: {self.split}; selection: {self.selection}; seeds: {self.seed}"
        return told + "".join(f"; commit {c[:9]}{'-dirty' * c.endswith('-dirty')}" for c in self.commits)

    @property
    def line(self) -> dict[str, str | None]:
        """As columns `ORIGIN` of a line of CSV; page and cell: of the first place."""
        first, source = self.places[0], " ".join(f"{p.file}:{p.lines}" for p in self.places)
        told = (self.split, self.selection, self.seed, source, ", ".join(self.commits) or None)
        return dict(zip(ORIGIN, (*told, first.page, first.cell), strict=True))


@dataclass(frozen=True)
class Origins:
    """Finds where numbers were made. ran: the notebooks that ran; nothing is known of results without one."""

    ran: Sequence[Executed]

    @cached_property
    def _results(self) -> pd.DataFrame:
        return self._read(RESULTS, COLUMNS)

    @cached_property
    def _compared(self) -> pd.DataFrame:
        return self._read(COMPARISONS, COMPARED)

    @cached_property
    def _shown(self) -> list[list[tuple[str, list[str], list[str]]]]:
        return [list(_tables(one)) for one in self.ran]

    def _read(self, name: str, columns: Sequence[str]) -> pd.DataFrame:
        """The files called so of all runs; run: its place in `ran`, line: in the file."""
        tables = [pd.DataFrame(columns=[*columns, "run", "line"])]
        for run, one in enumerate(self.ran):
            if (path := one.folder / f"{name}.csv").is_file():
                table = read_csv(path)
                tables.append(table.assign(run=run, line=table.index + 2))  # the first has the headings
        return pd.concat(tables[1:] or tables, ignore_index=True)

    def of_number(self, scale: str, benchmark: str, method: str, metric: str) -> Origin | None:
        """Where a method's number is from."""
        rows = self._results
        rows = rows[(rows["scale"] == scale) & (rows["benchmark"] == benchmark) & (rows["metric"] == metric)]
        rows = rows[rows["method"] == method]
        return self._origin(rows, {run: self._means(of) for run, of in _by_run(rows)})

    def of_piece(self, piece: Piece) -> Origin | None:
        """Where a piece of evidence is from."""
        asked, rows = piece.asked, self._results
        if piece.estimate is None:
            return None
        rows = rows[(rows["scale"] == piece.scale) & (rows["benchmark"] == asked.benchmark)]
        if isinstance(asked, Computed):
            return self._origin(rows, {})
        pair = [asked.method, asked.reference]
        rows = rows[(rows["metric"] == asked.metric) & rows["method"].isin(pair)]
        rows = rows[rows.groupby("seed")["method"].transform("nunique") == len(pair)]
        if piece.estimate.kind != STORED:
            return self._origin(rows, {run: self._means(of) for run, of in _by_run(rows)})
        stored = self._compared
        stored = stored[(stored["scale"] == piece.scale) & (stored["benchmark"] == asked.benchmark)]
        stored = stored[stored["metric"] == asked.metric]
        stored = stored[stored["method"].isin(pair) & stored["reference"].isin(pair)]
        way = [(frozenset(pair), asked.metric, piece.estimate.mean)]
        return self._origin(rows, {run: [(SHOWS, way)] for run in stored["run"]}, stored)

    @staticmethod
    def _means(rows: pd.DataFrame) -> list[Way]:
        """How a cell may show what rows of one run and one metric say: the difference, else each method."""
        metric = str(rows["metric"].iloc[0])
        means = rows.groupby("method", sort=False)["value"].mean()
        each = [(frozenset([str(m)]), metric, float(v)) for m, v in means.items()]
        if len(means) < 2:
            return [(SHOWS, each)]
        difference = (frozenset(map(str, means.index)), metric, float(means.iloc[0] - means.iloc[1]))
        return [(SHOWS, [difference]), (SHOWS_TERMS, each)]

    def _origin(
        self, rows: pd.DataFrame, ways: Mapping[int, list[Way]], stored: pd.DataFrame | None = None
    ) -> Origin | None:
        """The origin of a number of some rows, or stored as comparison; ways: of showing it, by run."""
        lines, name = (rows, RESULTS) if stored is None else (stored, COMPARISONS)
        if lines.empty:
            return None
        places = []
        for run, of in _by_run(lines):
            one, shown = self.ran[run], self._shown[run]
            cells = ((_cell(shown, wanted), does) for does, wanted in ways.get(run, []))
            page, does = next(
                ((f"{one.address}#{cell}", does) for cell, does in cells if cell),
                (one.anchor(f"out.{name}("), STORES),
            )
            if does == SHOWS and lines["run"].nunique() > 1:
                does = SHOWS_DRAW
            file = f"{one.scale}/{one.target}/{name}.csv"
            places.append(Place(one, file, _ranges(of["line"]), page, does))
        commits = dict.fromkeys(place.run.run.get("commit") for place in places)
        split, selection = ("; ".join(map(str, rows[c].unique())) for c in ("split", "selection"))
        return Origin(split, selection, _ranges(rows["seed"]), tuple(filter(None, commits)), tuple(places))


def with_origins(told: pd.DataFrame, origins: Sequence[Origin | None]) -> pd.DataFrame:
    """Lines with their origins: `origin`, and the columns `ORIGIN`, empty where nobody wrote it down."""
    made = pd.DataFrame([one.line if one else {} for one in origins], told.index, ORIGIN, dtype=object)
    whole = pd.Series(list(origins), told.index, dtype=object)
    return told.join(made.drop(columns=[c for c in ORIGIN if c in told])).assign(origin=whole)


def _by_run(rows: pd.DataFrame) -> list[tuple[int, pd.DataFrame]]:
    """The rows of each run, by its place among those that ran."""
    return [(int(str(run)), of) for run, of in rows.groupby("run")]


def _ranges(numbers: Iterable[int]) -> str:
    """Whole numbers, rising, those that follow each other as a range: 2-4, 7."""
    found: list[list[int]] = []
    for n in sorted(set(map(int, numbers))):
        if found and n == found[-1][1] + 1:
            found[-1][1] = n
        else:
            found.append([n, n])
    return ",".join(f"{a}-{b}" if a < b else str(a) for a, b in found)


def _tables(one: Executed) -> Iterable[tuple[str, list[str], list[str]]]:
    """The rows with numbers of all tables that a notebook shows, each with its cell and headings."""
    for cell in one.cells:
        for output in cell.get("outputs", []):
            head: list[str] = []
            for row in _rows(output):
                if any(map(_NUMBER.match, row[1:])):
                    yield cell["id"], head, row
                elif any(row[1:]):
                    head = row


def _rows(output: Mapping[str, Any]) -> list[list[str]]:
    """The rows of an HTML table, or of text whose columns stand two spaces apart."""
    data = output.get("data", {})
    if "text/html" in data:
        lines = re.findall(r"<tr.*?</tr>", "".join(data["text/html"]), re.DOTALL)
        cells = (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.DOTALL) for line in lines)
        return [[html.unescape(re.sub(r"<[^>]*>", "", c)).strip() for c in row] for row in cells]
    text = "".join(output.get("text", data.get("text/plain", "")))
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]


def _cell(shown: Sequence[tuple[str, list[str], list[str]]], wanted: Iterable[Number]) -> str | None:
    """The first cell whose tables show all numbers."""
    found = [{cell for cell, head, row in shown if _has(head, row, number)} for number in wanted]
    both = set.intersection(*found)
    return next((cell for cell, _, _ in shown if cell in both), None)


def _has(head: list[str], row: list[str], number: Number) -> bool:
    """Whether a row shows a number, to the digits that it has; its metric stands in the row or above."""
    names, metric, value = number
    if not names <= set(row):
        return False
    told = {_plain(text) for text in row}
    # From the right, as the headings of text lack one of the index.
    for back, text in enumerate(reversed(row), 1):
        match = _NUMBER.match(text)
        near = match and abs(abs(float(match[0])) - abs(value)) <= 0.501 * 10 ** -len(match[1] or "")
        if near and _plain(metric) in told | {_plain(head[-back]) if back <= len(head) else ""}:
            return True
    return False


def _plain(text: str) -> str:
    return text.replace("_", " ").lower()

"""The pages of the report, from ledger, pieces of evidence, claims and what the stages drew."""

import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from fgsynth.config.params import load
from fgsynth.config.stages import NOTEBOOKS
from fgsynth.evaluate import phase_map
from fgsynth.evidence import markdown, page, workflow
from fgsynth.evidence.ledger import COUNT, SCALES
from fgsynth.evidence.markdown import Line
from fgsynth.evidence.notebooks import PAGES, Executed, render
from fgsynth.evidence.pieces import CONTRADICTS, SUPPORTS, UNDECIDED, Comparison, Found, Piece, of_accuracy
from fgsynth.evidence.provenance import Origins
from fgsynth.evidence.questions import TOPICS
from fgsynth.evidence.rules import BEST
from fgsynth.evidence.strips import with_strips
from fgsynth.utils import paths

PLACES = ("per_shard", "workers", "root", "lists", "splits", "seed", "dtype")
"""Settings of machines and folders, which are no departure from a paper."""
REPEATED = ("mini_world", "worlds", "changes", "fill_to")
"""Blocks of a stage that repeat what is a difference of the three tables' own stages."""
RUN_SCALES = [scale for scale in SCALES if scale != "smoke"]
MAP = ("few", "overall", "few, rare", "balanced")


@dataclass(frozen=True)
class Site:
    """What the pages are made from; told: by claim the lines of pieces.csv, with texts.

    Lines of told and book have their origin as well.
    """

    root: Path
    found: Found
    book: pd.DataFrame
    order: pd.DataFrame
    verdicts: pd.DataFrame
    pieces: Mapping[str, list[Piece]]
    told: Mapping[str, list[Line]]
    origins: Origins

    @property
    def ran(self) -> Sequence[Executed]:
        """The notebooks that ran."""
        return self.origins.ran

    @property
    def reports(self) -> Path:
        """Where everything lies."""
        return self.root / "reports"

    @cached_property
    def by_stage(self) -> dict[str, list[str]]:
        """The claims whose pieces rest on numbers of a stage."""
        served: dict[str, dict[str, None]] = {}
        for claim, lines in self.told.items():
            for line in lines:
                for place in line["origin"].places if line["origin"] else ():
                    served.setdefault(place.run.stage, {})[claim] = None
        return {stage: list(claims) for stage, claims in served.items()}

    @cached_property
    def _standing(self) -> dict[str, str]:
        """Which claims have each verdict, by column of claims.csv."""
        return {c: markdown.standing(self.verdicts, c) for c in ("as_printed", "with_controls")}

    def write(self) -> None:
        """Write all pages, and take away those of notebooks that are gone."""
        site = self.reports / "site"
        paths.write_text(site / "style.css", page.text("style.css"))
        paths.write_text(site / "site.js", page.text("site.js"))
        for name in page.PAGES:
            values: dict[str, Any] = getattr(self, name)()
            shown = page.render(f"{name}.html", up="", current=name, title=page.PAGES[name], **values)
            paths.write_text(site / f"{name}.html", shown)
        for one in self.ran:
            served = self.by_stage.get(one.stage, [])
            paths.write_text(self.reports / PAGES / one.page, render(one, self.ran, served))
        there = {one.page for one in self.ran}
        for old in (self.reports / PAGES).glob("*.html"):
            if old.name not in there:
                old.unlink()

    def index(self) -> dict[str, Any]:
        """The answers: by topic a sentence and a forest plot per question, and how many were decided."""
        topics: dict[str, dict[str, str]] = {}
        lines: list[Line] = []
        for topic, questions in TOPICS.items():
            for one in questions:
                pieces = [self.found.piece(comparison) for comparison in one.asked]
                topics.setdefault(topic, {})[one.text] = markdown.sentence(one.asked, pieces)
                of = {"topic": topic, "question": one.text}
                lines += [self._line(*both) | of for both in zip(one.asked, pieces, strict=True)]
        return {
            "claims": len(self.verdicts),
            "topics": topics,
            "lines": with_strips(lines, "metric"),
            "words": {topic: Counter(x["word"] for x in lines if x["topic"] == topic) for topic in topics},
            "scales": [scale for scale in SCALES if scale in set(self.found.results["scale"])],
            "standing": self._standing,
            "tally": markdown.tally(self.pieces),
        }

    def _line(self, asked: Comparison, piece: Piece) -> dict[Hashable, Any]:
        """A piece as a line of the plot, with where it was made."""
        numbers: dict[Hashable, Any] = {k: getattr(piece.estimate, k, None) for k in ("mean", "low", "high")}
        return {
            "benchmark": markdown.title(piece), "metric": markdown.metric(asked), "outcome": piece.outcome,
            "pair": f"{asked.method} - {asked.reference}", "shown": piece.interval,
            "word": markdown.WORDS[piece.outcome], "scale": piece.scale, "over": piece.over,
            "role": "printed", "origin": self.origins.of_piece(piece), **numbers,
        }  # fmt: skip

    def claims(self) -> dict[str, Any]:
        """Every claim with a forest plot of its pieces."""
        return {
            "claims": self.verdicts.fillna("").to_dict("records"),
            "lines": {claim: with_strips(lines) for claim, lines in self.told.items()},
            "reading": markdown.reading(self.found, self.pieces),
            "standing": self._standing,
            "map_reading": self._map_reading,
        }

    def tables(self) -> dict[str, Any]:
        """Printed numbers beside ours, by table."""
        return {"tables": [self._table(name) for name in self.found.printed.tables]}

    def _table(self, name: str) -> dict[str, Any]:
        """A table, with the sets that print and ours are of."""
        table, mine = self.found.printed.tables[name], self.book[self.book["table"] == name]
        printed_on = markdown.TITLES[table.benchmark]
        scales = sorted(mine["scale"].dropna().unique(), key=SCALES.index)
        ours_on: dict[str, list[str]] = {}
        for scale in scales:
            ours_on.setdefault(markdown.called(printed_on, scale), []).append(scale)
        columns = list(mine["column"].unique())
        lines = []
        for row, cells in mine.groupby("row", sort=False):
            found = cells.astype(object).fillna("").to_dict("records")
            by_column = {c["column"]: {**c, "shown": _rounded(c)} for c in found}
            made = next((c for c in by_column.values() if c["page"]), next(iter(by_column.values())))
            called = str(cells["method"].iloc[0])
            told = {"row": row, "method": "" if called == row else called, "made": made}
            lines.append({**told, "cells": [by_column.get(c) for c in columns]})
        ranked = self.order[self.order["table"] == name].set_index("column").to_dict("index")
        order = [ranked.get(c) for c in columns]
        return {"name": name, "title": table.title, "columns": columns, "lines": lines, "order": order,
                "printed_on": printed_on, "ours_on": ours_on, "scale": next(iter(scales), None)}  # fmt: skip

    def gallery(self) -> dict[str, Any]:
        """The sheet of images of notebook 03, with a line per image."""
        return self._drawn("ablations", "gallery", "out.sprites(") | {"printed": BEST}

    def plane(self) -> dict[str, Any]:
        """The frames of notebook 01."""
        return self._drawn("toy_2d", "frames", 'out.table("frames"')

    def _drawn(self, stage: str, name: str, call: str) -> dict[str, Any]:
        """A table among the figures of a stage, at the largest scale that has it, its place and its cell."""
        of = ((one, one.folder / "figures" / f"{name}.csv") for one in self.ran if one.stage == stage)
        one, path = next((both for both in of if both[1].is_file()), (None, None))
        if one is None or path is None:
            return {"data": ""}
        # As it can stand in a page.
        data = paths.read_csv(path).round(3).to_json(orient="records").replace("<", "\\u003c")
        source = path.relative_to(self.reports).with_suffix("").as_posix()
        return {"data": data, "source": source, "cell": one.anchor(call), "name": one.name}

    @cached_property
    def _gains(self) -> pd.DataFrame:
        """Gains of feedback by setting; no rows where the map was not run."""
        path = self.root / phase_map.FOLDER / phase_map.GAINS
        return paths.read_csv(path) if path.is_file() else pd.DataFrame(columns=["metric", "low"])

    @cached_property
    def _map_reading(self) -> list[str]:
        return phase_map.reading(self._gains) if len(self._gains) else []

    def map(self) -> dict[str, Any]:
        """When feedback helps: differences by setting."""
        rows = self._gains[self._gains["metric"].isin(MAP) & self._gains["low"].notna()]
        lines = []
        for line in rows.to_dict("records"):
            shown = "{mean:+.1f} [{low:+.1f}, {high:+.1f}]".format_map(line)
            outcome = SUPPORTS if line["low"] > 0 else CONTRADICTS if line["high"] < 0 else UNDECIDED
            lines.append({**line, "all": "points", "shown": shown, "outcome": outcome})
        settings: dict[tuple[str, str], dict[str, Any]] = {}
        for line in with_strips(lines, "all"):
            settings.setdefault((line["factor"], line["value"]), {})[line["metric"]] = line
        cell = next((one.anchor("gains.csv") for one in self.ran if one.stage == "imagenet_lt"), None)
        return {"settings": settings, "metrics": MAP, "reading": self._map_reading, "cell": cell}

    def notebooks(self) -> dict[str, Any]:
        """All notebooks that ran, by stage."""
        numbered = sorted(NOTEBOOKS, key=NOTEBOOKS.__getitem__)
        by_stage = {stage: [one for one in self.ran if one.stage == stage] for stage in numbered}
        return {"stages": by_stage, "titles": {stage: of[0].title for stage, of in by_stage.items() if of},
                "claims": self.by_stage}  # fmt: skip

    def run(self) -> dict[str, Any]:
        """How it was run: stages, what they need, departures, the smallest effects that could be seen."""
        cost, stages = self.reports / "benchmark" / "cost.txt", workflow.stages(self.root)
        return {
            "ran": self.ran,
            "seeds": self._seeds(),
            "sizes": {path: stage.size for stage in stages for path in stage.makes},
            "dag": workflow.drawn(stages),
            "scales": RUN_SCALES,
            "departures": departures(self.root / "params.yaml"),
            "smallest": self._smallest(),
            "cost": paths.read_text(cost) if cost.is_file() else "",
            "true_size": _measured(self.reports / "true_size" / "true_size.csv"),
        }

    def _seeds(self) -> dict[str, int]:
        """Seeds by the page of a run: the most that a number of it has."""
        tables = {one.page: one.folder / "results.csv" for one in self.ran}
        keys = ["benchmark", "method", "metric"]
        return {page: int(paths.read_csv(path).groupby(keys)["seed"].nunique().max())
                for page, path in tables.items() if path.is_file()}  # fmt: skip

    def _smallest(self) -> list[dict[Hashable, Any]]:
        """Half-widths of the intervals of pieces: a smaller effect would not be told from none."""
        lines = pd.DataFrame([line for of in self.told.values() for line in of])
        if lines.empty or not (seen := lines[lines["mean"].map(lambda x: isinstance(x, float))]).shape[0]:
            return []
        half = (seen["high"] - seen["low"]).astype(float) / 2
        keys = ["benchmark", "metric", "scale", "over"]
        seen = seen.assign(half=half, metric=seen["difference"].str.split(":").str[0])
        seen = seen[seen["difference"].map(of_accuracy)].drop_duplicates(["benchmark", "difference"])
        found = seen.groupby(keys, sort=False)["half"].agg(["size", "min", "median", "max"])
        return found.reset_index().to_dict("records")


def _rounded(cell: Mapping[Hashable, Any]) -> str:
    """Our number with its half-width, where it has one that says something, as finely as print is."""
    if cell["ours"] == "":
        return ""
    if cell["column"] == COUNT:
        return f"{cell['ours']:,.0f}"
    digits = 3 if abs(cell["printed"]) < 2 else 1
    spread = f" ± {cell['spread']:.{digits}f}" if cell["spread"] != "" and cell["seeds"] > 2 else ""
    return f"{cell['ours']:.{digits}f}{spread}"


def departures(params: Path) -> list[tuple[str, str, dict[str, str]]]:
    """Settings of the papers' tables that differ from scale paper: key, stages, value by scale."""
    read = load(params)
    rows: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for stage in ("ablations", "imagenet_lt", "places_lt", "nicopp", "baselines"):
        by_scale = [_flat(read.at(scale).overrides(stage)) for scale in RUN_SCALES]
        for key in dict.fromkeys(key for values in by_scale for key in values):
            told = tuple(json.dumps(v[key]) if key in v else "" for v in by_scale)
            ours = key.rpartition(".")[2] in PLACES or key.split(".")[0] in REPEATED
            if len(set(told)) > 1 and not ours:
                rows.setdefault((key, told), []).append(stage)
    return [
        (key, ", ".join(of), dict(zip(RUN_SCALES, told, strict=True))) for (key, told), of in rows.items()
    ]


def _flat(values: Mapping[str, Any], below: str = "") -> dict[str, Any]:
    """Nested settings by their keys with dots."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{below}{key}.") if isinstance(value, dict) else {below + key: value}
    return out


def _measured(path: Path) -> list[dict[str, str]]:
    """Rows of the table of true size as text, none where nothing was measured."""
    if not path.is_file():
        return []
    table = paths.read_csv(path).dropna(axis=1, how="all")
    shown = table.map(lambda x: x if isinstance(x, str) else "-" if pd.isna(x) else f"{x:.3g}")
    return [{str(k): str(v) for k, v in row.items()} for row in shown.to_dict("records")]

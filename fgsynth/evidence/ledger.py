"""The ledger: every printed number beside ours, and how far the order of methods agrees with print."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
from pydantic import Field

from fgsynth.config import blocks
from fgsynth.config.names import check
from fgsynth.config.schema import Frozen, validated
from fgsynth.config.stages import NOTEBOOKS
from fgsynth.evaluate.draws import nested_interval
from fgsynth.evaluate.metrics import Interval, interval
from fgsynth.utils.paths import read_csv

OTHERS = "baselines"
"""The stage that makes the rows of `Table.others`."""
NOT_RUN, RUN, WITHIN, BEYOND = "not run", "run", "within tolerance", "beyond tolerance"
COUNT = "n_synthetic"
"""A number that is configured, not measured."""
SCALES = tuple(reversed(blocks.SCALES))
"""In order of preference: a number comes from the largest scale that has been run."""
COLUMNS = [
    *("paper", "table", "row", "method", "column", "printed", "printed_spread", "ours", "spread", "seeds"),
    *("scale", "split", "selection", "status", "stage", "notebook", "note"),
]
ORDER = ["table", "column", "scale", "methods", "correlation", "low", "high", "seeds"]
FEWEST = 4
"""Methods that an order needs."""


class Table(Frozen):
    """How one printed table is read; fields as described in data/paper/tables.yaml."""

    title: str
    paper: str
    key: list[str]
    numbers: dict[str, float]
    stage: str
    notebook: str
    benchmark: str
    methods: dict[str, str] = Field(default_factory=dict)
    others: list[str] = Field(default_factory=list)


def tables(folder: Path) -> dict[str, Table]:
    """The descriptions of data/paper/tables.yaml. Raises UserError naming the table and key or method."""
    path = folder / "tables.yaml"
    described: dict[str, Table] = {
        name: validated(Table, value, f"{path}, {name}") for name, value in blocks.read(path).items()
    }
    for name, table in described.items():
        check((*table.methods.values(), *table.others), f"{path}, {name}")
    return described


def printed_numbers(folder: Path, name: str, table: Table) -> pd.DataFrame:
    """The printed numbers of a table, one row each: row, method, column, printed, printed_spread, note.

    Raises UserError naming the file for a missing file or column, or a method that there is not.
    """
    path = folder / f"{name}.csv"
    needs, advice = (*table.key, *table.numbers), "tables.yaml names it, so add it there or here"
    wide = read_csv(path, advice, needs, keep_default_na=False, na_values=[""])
    rows = []
    for _, line in wide.iterrows():
        row = line[table.key[0]] if len(table.key) == 1 else ", ".join(f"{k} {line[k]}" for k in table.key)
        method = table.methods.get(row, row)
        check([method], str(path))
        rows += [
            {
                "row": row,
                "method": method,
                "column": column,
                "printed": line[column],
                "printed_spread": line.get(f"{column}_spread"),
                "note": line.get("note"),
            }
            for column in table.numbers
            if pd.notna(line[column])
        ]
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Printed:
    """The printed tables of a folder, each read once."""

    folder: Path

    @cached_property
    def tables(self) -> dict[str, Table]:
        """How each is read, see `tables`."""
        return tables(self.folder)

    @cached_property
    def numbers(self) -> dict[str, pd.DataFrame]:
        """The numbers of each, see `printed_numbers`."""
        return {name: printed_numbers(self.folder, name, table) for name, table in self.tables.items()}


def by_seed(rows: pd.DataFrame, method: str, metric: str) -> pd.Series:
    """Values of a method's metric indexed by seed; empty where it was not run."""
    mine = rows[(rows["method"] == method) & (rows["metric"] == metric)]
    return mine.set_index("seed")["value"].astype(float)


def draw_of(rows: pd.DataFrame) -> pd.Series:
    """The draw of the benchmark by seed."""
    return rows.drop_duplicates("seed").set_index("seed")["draw"]


def over_draws(values: pd.Series, draw: pd.Series) -> Interval:
    """Student's interval over the draws of the benchmark where there are several, else over the seeds.

    Seeds of one draw share its sets, so that they are fewer than so many independent numbers.
    """
    if draw.nunique() > 1:
        return nested_interval([of.to_numpy(float) for _, of in values.groupby(draw)])
    return interval(values.to_numpy(float))


def rank_correlation(a: pd.Series, b: pd.Series) -> float:
    """Spearman's, of two series by the same index; NaN where either does not vary."""
    # By hand, as pandas' own loads scipy.stats, which takes longer than the report's tables.
    return float(a.rank().corr(b.rank()))


def by_scale(results: pd.DataFrame, benchmark: str) -> dict[str, pd.DataFrame]:
    """The rows of a benchmark by scale, the largest that has been run first."""
    of = dict(list(results[results["benchmark"] == benchmark].groupby("scale")))
    return {scale: of[scale] for scale in SCALES if scale in of}


def largest_scale(results: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """The rows of a benchmark, each method's at the largest scale that it has been run at."""
    left, rows = results[results["benchmark"] == benchmark], results.iloc[:0]
    for scale in SCALES:
        here = left[left["scale"] == scale]
        rows, left = pd.concat([rows, here]), left[~left["method"].isin(here["method"])]
    return rows


def status(number: pd.Series, ours: Interval, scale: str, table: Table) -> str:
    """State whether a number was run and, at paper scale, whether it lies within tolerance.

    Tolerances are those of data/paper/tables.yaml, or the printed spread where that is wider.
    """
    if scale != "paper":
        return RUN
    spread = number["printed_spread"]
    allowed = max(table.numbers[number["column"]], 0 if pd.isna(spread) else spread)
    return WITHIN if abs(ours.mean - number["printed"]) <= allowed else BEYOND


def agreement(printed: Printed, results: pd.DataFrame) -> pd.DataFrame:
    """How far ours orders the methods of each printed column as printed: Spearman's rank correlation.

    Of the methods that were run, over the seeds that all of them have, with the interval of `over_draws`.
    One row per column with at least `FEWEST` such methods, as `ORDER`.
    """
    out = []
    for name, table in printed.tables.items():
        numbers = printed.numbers[name]
        rows = next(iter(by_scale(results, table.benchmark).values()), results.iloc[:0])
        for column in (c for c in table.numbers if c != COUNT):
            of = numbers[numbers["column"] == column].set_index("method")["printed"]
            ours = rows[(rows["metric"] == column) & rows["method"].isin(of.index)]
            wide = ours.pivot_table(index="method", columns="seed", values="value").dropna(axis=1)
            if len(wide) < FEWEST or wide.empty:
                continue
            each = wide.apply(rank_correlation, args=(of[wide.index],)).dropna()
            if len(each):
                found = over_draws(each, draw_of(ours).reindex(each.index))
                low, high = max(found.low, -1.0), min(found.high, 1.0)
                scale = rows["scale"].iloc[0]
                out.append((name, column, scale, len(wide), found.mean, low, high, found.n))
    return pd.DataFrame(out, columns=ORDER)


def ledger(printed: Printed, results: pd.DataFrame) -> pd.DataFrame:
    """One row per printed number of every table, with our value where there is one."""
    out = []
    for name, table in printed.tables.items():
        numbers, rows = printed.numbers[name], largest_scale(results, table.benchmark)
        for _, number in numbers.iterrows():
            out.append({"table": name, **dict(number), **_ours(number, rows, table)})
    return pd.DataFrame(out).reindex(columns=COLUMNS)


def _ours(number: pd.Series, rows: pd.DataFrame, table: Table) -> dict[str, object]:
    stage, notebook = table.stage, table.notebook
    if number["method"] in table.others:
        stage, notebook = OTHERS, NOTEBOOKS[OTHERS]
    fixed = {"paper": table.paper, "stage": stage, "notebook": notebook}
    mine = rows[(rows["method"] == number["method"]) & (rows["metric"] == number["column"])]
    if mine.empty:
        return {**fixed, "status": NOT_RUN}
    ours, first = over_draws(mine["value"], mine["draw"]), mine.iloc[0]
    return {
        **fixed,
        "ours": ours.mean,
        "spread": ours.half_width if ours.n > 1 else None,
        "seeds": ours.n,
        "scale": first["scale"],
        "split": first["split"],
        "selection": first["selection"],
        "status": status(number, ours, first["scale"], table),
    }

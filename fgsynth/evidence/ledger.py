"""The ledger: every printed number beside ours, with a verdict derived from tidy results."""

from pathlib import Path

import pandas as pd
from pydantic import Field

from fgsynth.config.blocks import read
from fgsynth.config.names import check
from fgsynth.config.schema import Frozen, validated
from fgsynth.config.stages import NOTEBOOKS
from fgsynth.evaluate.metrics import Interval, interval
from fgsynth.utils.paths import read_csv

OTHERS = "baselines"
"""The stage that makes the rows of `Table.others`."""
NOT_RUN, REPRODUCED, DIRECTION, FAILS = "not run", "reproduced", "direction holds", "does not hold"
SCALES = ("paper", "full", "mini", "smoke")
"""In order of preference: a number comes from the largest scale that has been run."""
COLUMNS = [
    *("paper", "table", "row", "method", "column", "printed", "printed_spread", "ours", "spread", "seeds"),
    *("scale", "split", "selection", "verdict", "stage", "notebook", "note"),
]


class Table(Frozen):
    """How one printed table is read; fields as described in data/paper/tables.yaml."""

    title: str
    paper: str
    key: list[str]
    numbers: dict[str, float]
    stage: str
    notebook: str
    benchmark: str
    baseline: str
    headline: str
    methods: dict[str, str] = Field(default_factory=dict)
    others: list[str] = Field(default_factory=list)


def tables(folder: Path) -> dict[str, Table]:
    """The descriptions of data/paper/tables.yaml. Raises UserError naming the table and key or method."""
    path = folder / "tables.yaml"
    described: dict[str, Table] = {
        name: validated(Table, value, f"{path}, {name}") for name, value in read(path).items()
    }
    for name, table in described.items():
        check((*table.methods.values(), table.baseline, table.headline, *table.others), f"{path}, {name}")
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


def by_seed(rows: pd.DataFrame, method: str, metric: str) -> pd.Series:
    """Values of a method's metric indexed by seed; empty where it was not run."""
    mine = rows[(rows["method"] == method) & (rows["metric"] == metric)]
    return mine.set_index("seed")["value"].astype(float)


def paired(rows: pd.DataFrame, metric: str, method: str, reference: str) -> Interval | None:
    """Interval of method - reference over the seeds both have; None where there is none."""
    return over(by_seed(rows, method, metric) - by_seed(rows, reference, metric))


def over(values: pd.Series) -> Interval | None:
    """Interval of values by seed; seeds without a value are left out, None where there is no other."""
    present = values.dropna()
    return interval(present.to_numpy()) if len(present) else None


def largest_scale(results: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """The rows of a benchmark at the largest scale that has been run."""
    mine = results[results["benchmark"] == benchmark]
    present = [scale for scale in SCALES if (mine["scale"] == scale).any()]
    return mine[mine["scale"] == present[0]] if present else mine


def verdict(
    number: pd.Series, ours: Interval, scale: str, printed: pd.Series, rows: pd.DataFrame, table: Table
) -> str:
    """The verdict on one printed number; the rule is in data/paper/tables.yaml.

    reproduced: at paper scale and within the column's tolerance or the printed spread.
    direction holds: the difference to the reference row has the printed sign and its interval
    over paired seeds excludes zero. does not hold: anything else.
    """
    spread = number["printed_spread"]
    allowed = max(table.numbers[number["column"]], 0 if pd.isna(spread) else spread)
    if scale == "paper" and abs(ours.mean - number["printed"]) <= allowed:
        return REPRODUCED
    reference = table.headline if number["method"] == table.baseline else table.baseline
    ours_difference = paired(rows, number["column"], number["method"], reference)
    if ours_difference is None or reference not in printed.index:
        return FAILS
    printed_difference = number["printed"] - printed[reference]
    agrees = ours_difference.sign * printed_difference > 0 or (
        printed_difference == 0 and ours_difference.mean == 0
    )
    return DIRECTION if agrees else FAILS


def ledger(folder: Path, results: pd.DataFrame) -> pd.DataFrame:
    """One row per printed number of every table in `folder`, with our value where there is one."""
    out = []
    for name, table in tables(folder).items():
        numbers = printed_numbers(folder, name, table)
        rows = largest_scale(results, table.benchmark)
        for _, number in numbers.iterrows():
            printed = numbers[numbers["column"] == number["column"]].set_index("method")["printed"]
            out.append({"table": name, **dict(number), **_ours(number, printed, rows, table)})
    return pd.DataFrame(out).reindex(columns=COLUMNS)


def _ours(number: pd.Series, printed: pd.Series, rows: pd.DataFrame, table: Table) -> dict[str, object]:
    stage, notebook = table.stage, table.notebook
    if number["method"] in table.others:
        stage, notebook = OTHERS, NOTEBOOKS[OTHERS]
    fixed = {"paper": table.paper, "stage": stage, "notebook": notebook}
    mine = rows[(rows["method"] == number["method"]) & (rows["metric"] == number["column"])]
    if mine.empty:
        return {**fixed, "verdict": NOT_RUN}
    ours, first = interval(mine["value"].to_numpy(float)), mine.iloc[0]
    return {
        **fixed,
        "ours": ours.mean,
        "spread": ours.half_width if ours.n > 1 else None,
        "seeds": ours.n,
        "scale": first["scale"],
        "split": first["split"],
        "selection": first["selection"],
        "verdict": verdict(number, ours, first["scale"], printed, rows, table),
    }

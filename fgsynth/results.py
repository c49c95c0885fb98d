"""Tidy results: one row per (scale, benchmark, method, seed, metric), with split and selection rule."""

from pathlib import Path

import numpy as np
import pandas as pd

from fgsynth.errors import UserError

COLUMNS = ["scale", "benchmark", "method", "seed", "metric", "value", "split", "selection"]
KEY = ["scale", "benchmark", "method", "seed", "metric", "split", "selection"]


def to_csv(rows: pd.DataFrame) -> str:
    """Checked CSV text of tidy rows, six significant digits, in the order they came.

    Raises UserError for missing or unknown columns, a repeated key, or a value that is infinite.
    """
    check(rows, "results")
    return rows[COLUMNS].to_csv(index=False, float_format="%.6g")


def check(rows: pd.DataFrame, source: str) -> None:
    """Raise UserError, naming `source`, unless `rows` are tidy results."""
    if set(rows.columns) != set(COLUMNS):
        odd = sorted(set(rows.columns) ^ set(COLUMNS))
        raise UserError(
            f"{source}: columns {', '.join(odd)} are missing or unknown; need {', '.join(COLUMNS)}."
        )
    repeated = rows[rows.duplicated(KEY)]
    if len(repeated):
        raise UserError(f"{source}: the row {repeated.iloc[0][KEY].to_dict()} is there twice.")
    values = pd.to_numeric(rows["value"], errors="coerce")
    if not np.isfinite(values).all():
        bad = rows[~np.isfinite(values)].iloc[0]
        raise UserError(
            f"{source}: {bad['method']}, {bad['metric']}, seed {bad['seed']} has no finite value."
        )


def tidy(
    wide: pd.DataFrame, metrics: list[str], *, benchmark: str, split: str, selection: str
) -> pd.DataFrame:
    """Wide rows (method, seed, one column per metric) as tidy rows without `scale`; NaN rows are left out."""
    long = wide.melt(["method", "seed"], metrics, "metric", "value").dropna(subset="value")
    return long.assign(benchmark=benchmark, split=split, selection=selection)


def read_all(folder: Path) -> pd.DataFrame:
    """All result files of a folder in one table; an empty table where there are none.

    Raises UserError naming the file that is damaged.
    """
    tables = []
    for path in sorted(folder.glob("*.csv")):
        try:
            rows = pd.read_csv(path)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not a readable CSV file; run its stage again.") from error
        check(rows, str(path))
        tables.append(rows)
    everything = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    check(everything, str(folder))
    return everything

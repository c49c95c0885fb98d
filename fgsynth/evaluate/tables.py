"""Tidy results: one row per (scale, benchmark, method, seed, metric), with split and selection rule."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from fgsynth.config import names
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import read_csv

COLUMNS = ["scale", "benchmark", "method", "seed", "metric", "value", "split", "selection"]
KEY = [column for column in COLUMNS if column != "value"]
COMPARED = ["scale", "benchmark", "method", "reference", "metric", "mean", "low", "high", "seeds", "split"]
PAIR = [column for column in COMPARED if column not in ("mean", "low", "high", "seeds")]


def comparisons_to_csv(rows: pd.DataFrame) -> str:
    """Checked CSV text of differences between methods, six significant digits.

    mean: method - reference in points; low, high: its 95 % interval, see `metrics.paired_interval`.
    Raises UserError for other columns, a pair that is there twice, or an interval that is none.
    """
    check_comparisons(rows, "comparisons")
    return rows[COMPARED].to_csv(index=False, float_format="%.6g")


def check_comparisons(rows: pd.DataFrame, source: str) -> None:
    """Raise UserError, naming `source`, unless `rows` are comparisons of methods that there are."""
    _check_shape(rows, source, COMPARED, PAIR, ("method", "reference"))
    if not (rows["low"] <= rows["high"]).all():
        raise UserError(f"{source}: an interval has its ends the wrong way round or missing.")


def to_csv(rows: pd.DataFrame) -> str:
    """Checked CSV text of tidy rows, six significant digits, in the order they came.

    Raises UserError for missing or unknown columns, a repeated key, or a value that is infinite.
    """
    check(rows, "results")
    return rows[COLUMNS].to_csv(index=False, float_format="%.6g")


def check(rows: pd.DataFrame, source: str) -> None:
    """Raise UserError, naming `source`, unless `rows` are tidy results of methods that there are."""
    _check_shape(rows, source, COLUMNS, KEY, ("method",))
    values = pd.to_numeric(rows["value"], errors="coerce")
    if not np.isfinite(values).all():
        bad = rows[~np.isfinite(values)].iloc[0]
        raise UserError(
            f"{source}: {bad['method']}, {bad['metric']}, seed {bad['seed']} has no finite value."
        )


def _check_shape(
    rows: pd.DataFrame, source: str, columns: list[str], key: list[str], methods: tuple[str, ...]
) -> None:
    """Raise UserError for other columns, methods that there are not, and a key that is there twice."""
    if odd := sorted(set(rows.columns) ^ set(columns)):
        needs = ", ".join(columns)
        raise UserError(f"{source}: columns {', '.join(odd)} are missing or unknown; need {needs}.")
    names.check(pd.unique(rows[list(methods)].to_numpy().ravel()), source)
    _check_once(rows, source, key)


def _check_once(rows: pd.DataFrame, source: str, key: list[str]) -> None:
    """Raise UserError for a key that is there twice."""
    repeated = rows[rows.duplicated(key)]
    if len(repeated):
        raise UserError(f"{source}: the row {repeated.iloc[0][key].to_dict()} is there twice.")


def tidy(
    wide: pd.DataFrame, metrics: list[str], *, benchmark: str, split: str, selection: str
) -> pd.DataFrame:
    """Wide rows (method, seed, one column per metric) as tidy rows without `scale`; NaN rows are left out."""
    long = wide.melt(["method", "seed"], metrics, "metric", "value").dropna(subset="value")
    return long.assign(benchmark=benchmark, split=split, selection=selection)


def read_all(folder: Path) -> pd.DataFrame:
    """The results of all scales and stages below reports/ in one table; an empty table where there are none.

    With the column `draw`: of the benchmark, as the stage's folder names it (imagenet_lt_2), else 0.
    Raises UserError naming the file that is damaged.
    """
    return _read(folder, "results.csv", COLUMNS, KEY, check)


def read_comparisons(folder: Path) -> pd.DataFrame:
    """All comparisons in one table, as `read_all`."""
    return _read(folder, "comparisons.csv", COMPARED, PAIR, check_comparisons)


def _read(
    folder: Path, name: str, columns: list[str], key: list[str], checked: Callable[[pd.DataFrame, str], None]
) -> pd.DataFrame:
    tables = [_read_file(path, checked) for path in sorted(folder.glob(f"*/*/{name}"))]
    if not tables:
        return pd.DataFrame(columns=[*columns, "draw"])
    everything = pd.concat(tables, ignore_index=True)
    _check_once(everything, str(folder), [*key, "draw"])
    return everything


def _read_file(path: Path, checked: Callable[[pd.DataFrame, str], None]) -> pd.DataFrame:
    rows = read_csv(path, "run its stage again")
    checked(rows, str(path))
    return rows.assign(draw=names.target(path.parent.name).draw or 0)

"""Pieces of evidence: differences that a claim predicts, their intervals, and what each interval decides."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Literal

import pandas as pd

from fgsynth.config import names
from fgsynth.config.blocks import read
from fgsynth.config.schema import Frozen, validated
from fgsynth.evidence.ledger import Printed, by_scale, by_seed, draw_of, over_draws, rank_correlation
from fgsynth.utils.errors import UserError

Role = Literal["printed", "row", "control"]
"""Whose comparison: the one that the claim states, another row that the paper prints, or one of ours."""
Test = Literal["greater", "not less", "equal"]
SUPPORTS, CONTRADICTS, UNDECIDED = "supports", "contradicts", "undecided"
OUT_OF_RANGE, NOT_RUN = "out of range", "not run"
OUTCOMES = (SUPPORTS, CONTRADICTS, UNDECIDED, OUT_OF_RANGE, NOT_RUN)
HOLDS, EXCLUDES = "holds", "excludes"
BY_DRAW, BY_SEED = "Student over draws", "Student over seeds"
STORED = "Student over seeds, normal over images"
"""Kinds of interval: over draws of the benchmark, over seeds on one draw, and as the notebook stored it, with
the test images as a sample."""
ACCURACIES = frozenset(
    ("overall", "many", "medium", "few", "average_accuracy", "worst_group_accuracy", "avg_val_accuracy")
) | {"few_val_accuracy", "minority_accuracy"}
"""Metrics in percent that have a floor and a ceiling."""


def of_accuracy(difference: str) -> bool:
    """Whether a difference in words, as "few: A - B", is one of accuracies."""
    return difference.split(":")[0].replace(" ", "_") in ACCURACIES


class Margins(Frozen):
    """data/paper/margins.yaml: what counts as equal, and where an accuracy can be told apart."""

    floor: float
    ceiling: float
    margins: dict[str, float]


def read_margins(folder: Path) -> Margins:
    """The margins of data/paper. Raises UserError for a missing file or a wrong key."""
    path = folder / "margins.yaml"
    return validated(Margins, read(path), str(path))


@dataclass(frozen=True)
class Estimate:
    """A difference with the ends of its 95 % interval, of n draws or seeds; kind: how these were found."""

    mean: float
    low: float
    high: float
    n: int
    kind: str


def student(values: pd.Series, rows: pd.DataFrame, bound: float = inf) -> Estimate | None:
    """Student's interval of paired differences by seed, within ± bound; None where no seed has one.

    Over the draws of the benchmark where rows has several, else over the seeds.
    """
    present = values.dropna()
    if present.empty:
        return None
    draw = draw_of(rows).reindex(present.index)
    found = over_draws(present, draw)
    low, high = max(found.low, -bound), min(found.high, bound)
    return Estimate(found.mean, low, high, found.n, BY_DRAW if draw.nunique() > 1 else BY_SEED)


@dataclass(frozen=True)
class Comparison:
    """A difference, method - reference, that a claim predicts on a benchmark.

    test: "greater", the difference is positive; "not less", it is above minus the margin; "equal", it lies
    within the margin on both sides. margin: its key in data/paper/margins.yaml.
    table: the printed table that has both numbers; column: the metric's name there, where it differs.
    """

    role: Role
    benchmark: str
    metric: str
    method: str
    reference: str
    table: str | None = None
    test: Test = "greater"
    margin: str | None = None

    @property
    def what(self) -> str:
        """The difference in words."""
        return f"{self.metric.replace('_', ' ')}: {self.method} - {self.reference}"


@dataclass(frozen=True)
class Computed:
    """A quantity by seed that a claim predicts on a benchmark, computed from the benchmark's tidy rows.

    bound: the largest absolute value that it can have.
    """

    role: Role
    benchmark: str
    what: str
    values: Callable[[pd.DataFrame], pd.Series]
    test: Test = "greater"
    margin: str | None = None
    bound: float = inf


@dataclass(frozen=True)
class Piece:
    """A piece of evidence, at the largest scale that was run.

    printed: the size that the paper prints, None where it prints none. smaller: the same at smaller scales.
    """

    asked: Comparison | Computed
    scale: str | None
    estimate: Estimate | None
    in_range: bool
    margin: float
    printed: float | None
    smaller: tuple["Piece", ...] = ()

    @property
    def outcome(self) -> str:
        """What the interval decides.

        supports: it lies where the claim predicts; contradicts: it lies beyond; undecided: neither;
        out of range: methods at the floor or the ceiling, where nothing can be told apart. Equality asks
        for a 95 % interval within the margins, which is stricter than two one-sided tests at 5 %.
        """
        if self.estimate is None:
            return NOT_RUN
        if not self.in_range:
            return OUT_OF_RANGE
        low, high = self.estimate.low, self.estimate.high
        if low == high:
            return UNDECIDED  # of draws that agree to the last digit nothing is known of others
        if self.asked.test == "equal":
            inside, beyond = (
                low > -self.margin and high < self.margin,
                low > self.margin or high < -self.margin,
            )
        else:
            least = -self.margin if self.asked.test == "not less" else 0.0
            inside, beyond = low > least, high < least
        return SUPPORTS if inside else CONTRADICTS if beyond else UNDECIDED

    @property
    def over(self) -> str:
        """What the interval is over; empty without one."""
        if self.estimate is None:
            return ""
        drawn = "draws" if self.estimate.kind == BY_DRAW else "seeds"
        return f"{self.estimate.n} {drawn}" + (" and images" if self.estimate.kind == STORED else "")

    @property
    def predicted(self) -> str:
        """Where the claim predicts the difference."""
        if self.asked.test == "equal":
            return f"within ±{self.margin:g}"
        return f"above {-self.margin:g}" if self.asked.test == "not less" else "above 0"

    @property
    def size(self) -> str | None:
        """Whether the interval holds or excludes the printed size; None without either."""
        if self.estimate is None or self.printed is None:
            return None
        return HOLDS if self.estimate.low <= self.printed <= self.estimate.high else EXCLUDES

    @property
    def interval(self) -> str:
        """The difference and its interval, with as many decimals as show the sign of both ends."""
        if self.estimate is None:
            return NOT_RUN
        e, digits = self.estimate, _digits(self.estimate)
        small = self.printed is not None and abs(self.printed) < 1
        if small and not of_accuracy(self.asked.what):
            digits = max(digits, 3)
        return f"{e.mean:+z.{digits}f} [{e.low:+z.{digits}f}, {e.high:+z.{digits}f}]"

    def __str__(self) -> str:
        return f"{self.asked.what}: {self.interval}"


def _digits(e: Estimate) -> int:
    """One to four decimals."""
    ends = [abs(x) for x in (e.low, e.high) if x]
    return next((d for d in (1, 2, 3) if all(round(x, d) > 0 for x in ends)), 4)


@dataclass(frozen=True)
class Found:
    """What was run: tidy results, comparisons of methods, and data/paper, to which they are held."""

    results: pd.DataFrame
    compared: pd.DataFrame
    paper: Path

    @cached_property
    def margins(self) -> Margins:
        """data/paper/margins.yaml."""
        return read_margins(self.paper)

    @cached_property
    def printed(self) -> Printed:
        """The tables of data/paper."""
        return Printed(self.paper)

    @cached_property
    def _sizes(self) -> dict[str, pd.Series]:
        return {
            name: numbers.set_index(["method", "column"])["printed"]
            for name, numbers in self.printed.numbers.items()
        }

    @cached_property
    def _by_benchmark(self) -> dict[str, dict[str, pd.DataFrame]]:
        return {b: by_scale(self.results, b) for b in self.results["benchmark"].unique()}

    def rows(self, benchmark: str) -> pd.DataFrame:
        """A benchmark's rows at the largest scale that was run; empty where none was."""
        return next(iter(self._by_benchmark.get(benchmark, {}).values()), self.results.iloc[:0])

    def piece(self, asked: Comparison | Computed) -> Piece:
        """The piece of evidence, at the largest scale that has it.

        Raises UserError for a method or margin that there is not.
        """
        if isinstance(asked, Comparison):
            names.check((asked.method, asked.reference), "A rule")
        if asked.margin is not None and asked.margin not in self.margins.margins:
            raise UserError(
                f"{self.paper / 'margins.yaml'} has no margin '{asked.margin}', which a rule needs."
            )
        at = [self._at(asked, rows) for rows in self._by_benchmark.get(asked.benchmark, {}).values()]
        largest, *smaller = [piece for piece in at if piece.estimate] or [
            self._at(asked, self.results.iloc[:0])
        ]
        return replace(largest, smaller=tuple(smaller))

    def _at(self, asked: Comparison | Computed, rows: pd.DataFrame) -> Piece:
        """The piece at the scale of some rows; not run where there is none."""
        scale = None if rows.empty else str(rows["scale"].iloc[0])
        margin = self.margins.margins[asked.margin] if asked.margin else 0.0
        if isinstance(asked, Computed):
            estimate = None if rows.empty else student(asked.values(rows), rows, asked.bound)
            return Piece(asked, scale, estimate, True, margin, None)
        estimate = None if rows.empty else self._difference(asked, rows)
        return Piece(asked, scale, estimate, self._in_range(asked, rows), margin, self._size(asked))

    def _difference(self, asked: Comparison, rows: pd.DataFrame) -> Estimate | None:
        """The one that is stored, turned round where only the opposite is; else Student's interval."""
        of = self.compared[
            (self.compared["benchmark"] == asked.benchmark)
            & (self.compared["scale"] == rows["scale"].iloc[0])
            & (self.compared["metric"] == asked.metric)
        ]
        for a, b, sign in ((asked.method, asked.reference, 1), (asked.reference, asked.method, -1)):
            mine = of[(of["method"] == a) & (of["reference"] == b)]
            if len(mine) == 1:
                mean, low, high = sign * mine.iloc[0][["mean", "low", "high"]].astype(float)
                return Estimate(mean, min(low, high), max(low, high), int(mine.iloc[0]["seeds"]), STORED)
        first, second = (by_seed(rows, m, asked.metric) for m in (asked.method, asked.reference))
        return student(first - second, rows)

    def _in_range(self, asked: Comparison, rows: pd.DataFrame) -> bool:
        """Whether the two accuracies can be told apart: not both at the ceiling, the reference off the floor.

        A method that has learnt nothing of what a metric asks for is beaten by any other.
        """
        if asked.metric not in ACCURACIES or rows.empty:
            return True
        method, reference = (by_seed(rows, m, asked.metric).mean() for m in (asked.method, asked.reference))
        if min(method, reference) > self.margins.ceiling:
            return False
        return not reference < self.margins.floor

    def _size(self, asked: Comparison) -> float | None:
        """The printed difference; None where the table lacks one of the two numbers."""
        if asked.table is None:
            return None
        printed = self._sizes[asked.table]
        keys = [(asked.method, asked.metric), (asked.reference, asked.metric)]
        return float(printed[keys[0]] - printed[keys[1]]) if all(k in printed.index for k in keys) else None


def correlation_with_accuracy(rows: pd.DataFrame, measure: str) -> pd.Series:
    """Spearman's of a measure and validation accuracy over the methods of each seed; NaN without spread."""
    wide = rows.pivot_table(index=["seed", "method"], columns="metric", values="value")
    if not {measure, "avg_val_accuracy"} <= set(wide.columns):
        return pd.Series(dtype=float)
    both = wide[[measure, "avg_val_accuracy"]].dropna()
    each = {seed: rank_correlation(of[measure], of["avg_val_accuracy"]) for seed, of in both.groupby("seed")}
    return pd.Series(each, dtype=float)

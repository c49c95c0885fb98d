"""Accuracies by class and by stratum, and intervals over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from fgsynth.errors import UserError

MANY_ABOVE, FEW_BELOW = 100, 20


def strata(train_counts: ArrayLike) -> NDArray[np.str_]:
    """Many (> 100), medium (20..100) and few (< 20) by *training* count (Liu et al. 2019): (c,) names."""
    counts = np.asarray(train_counts)
    return np.where(counts > MANY_ABOVE, "many", np.where(counts < FEW_BELOW, "few", "medium"))


def per_class_accuracy(predicted: ArrayLike, label: ArrayLike, n_classes: int) -> NDArray[np.float64]:
    """Accuracy within each class, in percent: (n_classes,); NaN for a class with no sample."""
    predicted, label = np.asarray(predicted), np.asarray(label)
    hits = np.bincount(label, weights=predicted == label, minlength=n_classes)
    totals = np.bincount(label, minlength=n_classes)
    return 100 * np.divide(hits, totals, out=np.full(n_classes, np.nan), where=totals > 0)


def long_tail_accuracy(predicted: ArrayLike, label: ArrayLike, train_counts: ArrayLike) -> dict[str, float]:
    """Overall (over samples) and many/medium/few (means of per-class accuracies), in percent.

    An empty stratum is NaN, not 0.
    """
    predicted, label = np.asarray(predicted), np.asarray(label)
    groups = strata(train_counts)
    per_class = per_class_accuracy(predicted, label, len(groups))
    result = {"overall": 100 * float((predicted == label).mean())}
    for name in ("many", "medium", "few"):
        members = per_class[groups == name]
        result[name] = float(members.mean()) if members.size else float("nan")
    return result


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % half-width; `n` values."""

    mean: float
    half_width: float
    n: int

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half_width

    @property
    def sign(self) -> int:
        """+1 or -1 if the interval excludes zero on that side, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.half_width:.2f}"


def interval(values: Sequence[float] | NDArray[np.float64]) -> Interval:
    """Student's t 95 % confidence interval of the mean over seeds (paired: pass the differences).

    One value gives an infinite half-width. Raises UserError for no value or a NaN.
    """
    array = np.asarray(values, dtype=float)
    if array.size == 0 or np.isnan(array).any():
        raise UserError(f"An interval needs at least one value and no NaN; got {array.tolist()}.")
    n = array.size
    if n == 1:
        return Interval(float(array[0]), float("inf"), 1)
    half = stats.t.ppf(0.975, n - 1) * array.std(ddof=1) / np.sqrt(n)
    return Interval(float(array.mean()), float(half), n)

"""Accuracies by class, stratum and group, and intervals over seeds and images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from fgsynth.data.benchmark import strata
from fgsynth.utils.errors import UserError


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


class GroupAccuracy(TypedDict):
    """Accuracies in percent; per_group: (n_classes * n_contexts,), at context + n_contexts * class."""

    average_accuracy: float
    worst_group_accuracy: float
    per_group: NDArray[np.float64]


def group_accuracy(
    predicted: ArrayLike, label: ArrayLike, context: ArrayLike, n_classes: int, n_contexts: int
) -> GroupAccuracy:
    """Average and worst-group accuracy over (class, context) groups (SubpopBench, Yang et al. 2023).

    predicted, label, context: (n,) integers. In percent. The average is over samples, the worst
    over the groups that have a sample; the others are NaN in per_group.
    Raises UserError for no sample, unequal lengths, or a label or context out of range.
    """
    predicted, label, context = np.asarray(predicted), np.asarray(label), np.asarray(context)
    if not len(predicted) == len(label) == len(context) > 0:
        raise UserError(
            f"{len(predicted)} predictions, {len(label)} labels and {len(context)} contexts: "
            "one of each per sample is needed, and at least one sample."
        )
    for name, values, count in (("Label", label, n_classes), ("Context", context, n_contexts)):
        wrong = values[(values < 0) | (values >= count)]
        if wrong.size:
            raise UserError(f"{name} {wrong[0]} is out of range: give integers from 0 to {count - 1}.")
    hit, group = predicted == label, context + n_contexts * label
    # A group counts as predicted where the class is; -1 is no group.
    per_group = per_class_accuracy(np.where(hit, group, -1), group, n_classes * n_contexts)
    return {
        "average_accuracy": 100 * float(hit.mean()),
        "worst_group_accuracy": float(np.nanmin(per_group)),
        "per_group": per_group,
    }


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


@dataclass(frozen=True)
class Bootstrap:
    """A difference in percent as observed, with the ends of its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """+1 or -1 if the interval excludes zero on that side, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


def paired_bootstrap(
    hits_a: ArrayLike,
    hits_b: ArrayLike,
    label: ArrayLike,
    *,
    statistic: Literal["mean", "worst"] = "mean",
    repeats: int = 2000,
    seed: int = 0,
) -> Bootstrap:
    """Paired percentile bootstrap of a - b over seeds and images (Owen 2007, pigeonhole bootstrap).

    hits_a, hits_b: (n_seeds, n) booleans, right or wrong; row s of both was trained with seed s, column i
    is the same image. label: (n,), its class or group. statistic: over the classes present, the "mean"
    or the "worst" accuracy of a trained network, in percent, averaged over seeds. Each repeat draws
    seeds, and images within every class, with replacement and the same for a and b.
    The interval is wide where seeds differ by chance only, and too narrow where a few seeds differ
    much; with one seed it is of the images alone. The worst of resampled groups is lower than the
    worst group, so that interval need not be centred on `mean`.
    Raises UserError for hits that are no booleans, shapes that do not fit, or an unknown statistic.
    """
    # Here, as it brings torch, which the report does without.
    from fgsynth.utils.seeds import stable_seed

    if statistic not in ("mean", "worst"):
        raise UserError(f"Unknown statistic '{statistic}': choose 'mean' or 'worst'.")
    hits, label = _paired_hits(hits_a, hits_b), np.asarray(label)
    n_seeds, n = hits.shape[1:]
    if label.shape != (n,):
        raise UserError(f"Labels of shape {label.shape} for {n} images: give one label per image.")
    rng = np.random.default_rng(stable_seed("paired bootstrap", seed))
    # (1 + repeats, n_seeds): the first row is what was observed.
    weights = np.vstack([np.ones(n_seeds), rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), repeats)])
    each = _resampled(hits, label, statistic, repeats, rng)
    differences = 100 * (weights * (each[:, 0] - each[:, 1])).mean(1)
    low, high = np.quantile(differences[1:], [0.025, 0.975])
    return Bootstrap(float(differences[0]), float(low), float(high))


def _paired_hits(hits_a: ArrayLike, hits_b: ArrayLike) -> NDArray[np.bool_]:
    """Both methods' hits, checked: (2, n_seeds, n)."""
    a, b = np.asarray(hits_a), np.asarray(hits_b)
    if a.dtype != bool or b.dtype != bool:
        raise UserError(f"Hits of type {a.dtype} and {b.dtype}: give booleans, predicted == label.")
    if a.ndim != 2 or a.shape != b.shape or a.size == 0:
        raise UserError(
            f"Hits of shapes {a.shape} and {b.shape}: give (n_seeds, n) twice, on the same images."
        )
    return np.stack([a, b])


def _resampled(
    hits: NDArray[np.bool_], label: NDArray[np.int64], statistic: str, repeats: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The statistic of every network as observed and per repeat, as fractions: (1 + repeats, 2, n_seeds)."""
    classes = np.unique(label)
    combine, start = (np.add, 0.0) if statistic == "mean" else (np.minimum, np.inf)
    total = np.full((1 + repeats, 2 * hits.shape[1]), start)
    for c in classes:
        members = hits[:, :, label == c].reshape(total.shape[1], -1)
        # Images with the same hits are alike, so counts of patterns do for draws of images.
        patterns, counts = np.unique(members, axis=1, return_counts=True)
        n = counts.sum()
        drawn = np.vstack([counts, rng.multinomial(n, counts / n, repeats)])
        combine(total, drawn @ patterns.T.astype(float) / n, out=total)
    if statistic == "mean":
        total /= len(classes)
    return total.reshape(-1, *hits.shape[:2])

"""Accuracies by class, stratum and group, and intervals over seeds and images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

from fgsynth.data.benchmark import strata
from fgsynth.utils.errors import UserError

CELLS = 0.5
"""Images added to each cell of a table of two methods, right and wrong (Agresti and Min 2005): without them
images that all agree would be without variance, and an interval of two images without width."""


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
    half = stdtrit(n - 1, 0.975) * array.std(ddof=1) / np.sqrt(n)
    return Interval(float(array.mean()), float(half), n)


def paired_interval(
    hits_a: ArrayLike,
    hits_b: ArrayLike,
    label: ArrayLike,
    *,
    statistic: Literal["mean", "worst"] = "mean",
    repeats: int = 1000,
) -> Interval:
    """95 % confidence interval of a - b over seeds and images, both drawn anew.

    Two half-widths, added in quadrature: Student's of the seeds' differences, and the normal one of what
    all seeds share as they are tested on the same images. Either is exact where the other vanishes. Few seeds
    give a wide interval, as they should: a percentile bootstrap over three seeds is far too narrow.

    Parameters
    ----------
    hits_a, hits_b : array
        (n, m) booleans, right or wrong; row s of both was trained with seed s, column i is the same image.
    label : array
        Class or group of each image, (m,).
    statistic : "mean" or "worst"
        Of the accuracies of the classes or groups of one classifier, in percent.
    repeats : int
        Bootstrap draws of the images, for the variance of the worst.

    Raises
    ------
    UserError
        For hits that are no booleans, shapes that do not fit, or an unknown statistic.
    """
    if statistic not in ("mean", "worst"):
        raise UserError(f"Unknown statistic '{statistic}': choose 'mean' or 'worst'.")
    hits, label = _paired_hits(hits_a, hits_b), np.asarray(label)
    m = hits.shape[2]
    if label.shape != (m,):
        raise UserError(f"Labels of shape {label.shape} for {m} images: give one label per image.")
    members = [hits[:, :, label == c] for c in np.unique(label)]
    combine = np.mean if statistic == "mean" else np.min
    each = combine([of.mean(2) for of in members], axis=0)
    differences = 100 * (each[0] - each[1])
    shared = [of[0].astype(float) - of[1] for of in members]
    variance = _shared_variance(shared) if statistic == "mean" else _worst_variance(members, repeats)
    return _over_both(differences, variance)


def split_interval(hits_a: ArrayLike, hits_b: ArrayLike, held: ArrayLike, label: ArrayLike) -> Interval:
    """95 % confidence interval of a - b over random splits of the same images, as `paired_interval`.

    hits_a, hits_b, held: (n, m) booleans, row s of split s; held are the images that it tests, others do not
    count. Of the mean class accuracy, in points. An image counts by its mean over the splits that test it. It
    holds for other images and other splits of this kind; splits share images to train on, so a collection
    drawn anew may differ by more. Raises UserError as `paired_interval`, and where nothing is held out.
    """
    hits, held, label = _paired_hits(hits_a, hits_b), np.asarray(held), np.asarray(label)
    if held.shape != hits.shape[1:] or not held.any(1).all():
        raise UserError("Every split must hold out at least one image: give (n_splits, n) booleans.")
    x = np.where(held, hits[0].astype(float) - hits[1], np.nan)
    tested = held.any(0)
    shared = [x[:, tested & (label == c)] for c in np.unique(label[tested])]
    differences = 100 * np.nanmean([np.nanmean(of, 1) for of in shared], axis=0)
    return _over_both(differences, _shared_variance(shared))


def _over_both(differences: NDArray[np.float64], images: float) -> Interval:
    """Student's interval of the seeds' differences (points) and the normal one of the images' variance."""
    n, mean = len(differences), float(differences.mean())
    if n == 1:
        return Interval(mean, float("inf"), 1)
    seeds = stdtrit(n - 1, 0.975) ** 2 * differences.var(ddof=1) / n
    return Interval(mean, float(np.sqrt(seeds + ndtri(0.975) ** 2 * 1e4 * images)), n)


def _paired_hits(hits_a: ArrayLike, hits_b: ArrayLike) -> NDArray[np.bool_]:
    """Both methods' hits, checked: (2, n_seeds, m)."""
    a, b = np.asarray(hits_a), np.asarray(hits_b)
    if a.dtype != bool or b.dtype != bool:
        raise UserError(f"Hits of type {a.dtype} and {b.dtype}: give booleans, predicted == label.")
    if a.ndim != 2 or a.shape != b.shape or a.size == 0:
        raise UserError(
            f"Hits of shapes {a.shape} and {b.shape}: give (n_seeds, n) twice, on the same images."
        )
    return np.stack([a, b])


def _shared_variance(differences: Sequence[NDArray[np.float64]]) -> float:
    """Variance of the mean difference that is due to images and common to all seeds (two-way analysis).

    differences: by class, of hits, (n, m_c), NaN where a seed does not test an image. What differs from
    seed to seed is taken off, as s^2 has it already. Few images of a class may all agree by chance, so every
    class counts as having as many more images of the variance of all classes as CELLS adds to it; to that the
    cells themselves are added once.
    """
    sizes, own = [], []
    for x in differences:
        m, each, noise = x.shape[1], *_by_image(x)
        sizes.append(m)
        own.append(each.var(ddof=1) - noise if m > 1 else 0.0)
    size, squares = np.array(sizes), (np.array(sizes) - 1) * own
    added = CELLS * 4
    pooled = (max(squares.sum(), 0.0) + 2 * CELLS) / ((size - 1).sum() + added)
    each = (squares + added * pooled) / (size - 1 + added)
    least = 2 * CELLS / (size.sum() + added)
    return float(max((each / size).sum(), (least / size).sum())) / len(differences) ** 2


def _by_image(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Mean over seeds of every image (m,), of (n, m) with NaN, and the variance of it that is the seeds'."""
    times = (~np.isnan(x)).sum(0)
    several = x[:, times > 1]
    noise = float(np.nanvar(several, 0, ddof=1).mean() * (1 / times).mean()) if several.size else 0.0
    return np.nanmean(x, 0), noise


def _worst_variance(members: Sequence[NDArray[np.bool_]], repeats: int) -> float:
    """Bootstrap variance over images of the difference of worst accuracies, averaged over seeds.

    From every group's images and CELLS of each kind: right by both methods, by one, by none.
    """
    # A fixed generator: the same hits have the same interval.
    rng = np.random.default_rng(0)
    n = members[0].shape[1]
    cells = np.repeat([[1, 1, 0, 0], [1, 0, 1, 0]], n, axis=0)
    worst = np.full((repeats, 2 * n), np.inf)
    for of in members:
        # Images with the same hits are alike, so counts of patterns do for draws of images.
        patterns, counts = np.unique(of.reshape(2 * n, -1), axis=1, return_counts=True)
        chances = np.append(counts, np.full(4, CELLS)) / (counts.sum() + 4 * CELLS)
        drawn = rng.multinomial(counts.sum(), chances, repeats)
        np.minimum(worst, drawn @ np.hstack([patterns, cells]).T.astype(float) / counts.sum(), out=worst)
    each = worst.reshape(repeats, 2, -1)
    return float((each[:, 0] - each[:, 1]).mean(1).var(ddof=1))

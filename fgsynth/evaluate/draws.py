"""Draws of worlds and sets, several classifiers each: variance components, and intervals over draws."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import fdtrc, stdtrit

from fgsynth.evaluate.metrics import Interval
from fgsynth.utils.errors import UserError

PRIOR_DF = 2
"""Draws that a measured variance counts for. With more of them less than 93 % of intervals would cover the
truth where standard deviations are 1.5 times as large as measured."""


class Prior(NamedTuple):
    """Variances measured on other draws: of a draw's expectation, and of a classifier within a draw."""

    between: float
    within: float


def components(values: ArrayLike, again: ArrayLike) -> pd.DataFrame:
    """Variance components of a nested design by the method of moments (analysis of variance).

    Parameters
    ----------
    values : array
        (worlds, sets, classifiers), at least two of each: a difference for every classifier.
    again : array
        (worlds, classifiers): the classifiers of every world's first set, trained again with other rounding.

    Returns
    -------
    DataFrame
        A row for world, set, classifier and rounding: `sd` in the unit of the values, 0 where the variance is
        estimated below zero; `df` of its mean square; `p` of the F test of worlds against sets, of sets
        against classifiers. Rounding is within what classifiers differ by, and is taken off it.

    Raises
    ------
    UserError
        For shapes that do not fit, and for a NaN.
    """
    x, y = np.asarray(values, dtype=float), np.asarray(again, dtype=float)
    if x.ndim != 3 or min(x.shape) < 2 or y.shape != (x.shape[0], x.shape[2]):
        raise UserError(
            f"Variance components of values of shape {x.shape} and {y.shape}: give (worlds, sets, "
            "classifiers), at least two of each, and (worlds, classifiers)."
        )
    if np.isnan(x).any() or np.isnan(y).any():
        raise UserError("Variance components need a value for every classifier: there is a NaN.")
    w, s, c = x.shape
    between = s * c * x.mean((1, 2)).var(ddof=1), c * x.mean(2).var(1, ddof=1).mean()
    squares = np.array([*between, x.var(2, ddof=1).mean(), ((x[:, 0] - y) ** 2).mean() / 2])
    df = np.array([w - 1, w * (s - 1), w * s * (c - 1), w * c])
    variances = np.append(-np.diff(squares) / [s * c, c, 1], squares[3])
    with np.errstate(divide="ignore", invalid="ignore"):
        p = [*fdtrc(df[:2], df[1:3], squares[:2] / squares[1:3]), np.nan, np.nan]
    sd = np.sqrt(np.maximum(variances, 0))
    sources = ["world", "set", "classifier", "rounding"]
    return pd.DataFrame({"source": sources, "sd": sd, "df": df, "p": p})


def nested_interval(
    differences: Sequence[ArrayLike] | NDArray[np.float64], prior: Prior | None = None
) -> Interval:
    """95 % confidence interval of the mean over draws of the world and the synthetic set.

    Student's t of the draws' means: exact for any components, and wide for two or three draws. With a prior
    the moderated t (Smyth 2004): its variance of a draw's mean counts as much as `PRIOR_DF` further draws.
    `n` is the number of draws.

    Parameters
    ----------
    differences : sequence
        By draw, the paired differences of its classifiers; (draws, classifiers) if all have as many.
    prior : Prior, optional
        Variances measured on other draws, for differences of the same kind.

    Raises
    ------
    UserError
        For no draw, a draw without a classifier, a NaN, or a variance below zero.
    """
    draws = [np.asarray(one, dtype=float).ravel() for one in differences]
    if not draws:
        raise UserError("An interval over draws needs at least one draw.")
    for i, one in enumerate(draws):
        if not one.size or np.isnan(one).any():
            raise UserError(f"Draw {i} has the differences {one.tolist()}: give at least one and no NaN.")
    if prior and not (prior.between >= 0 and prior.within >= 0):
        raise UserError(f"Prior variances {tuple(prior)}: give two that are not below zero.")
    means = np.array([one.mean() for one in draws])
    mean, n = float(means.mean()), len(means)
    squares, df = float(((means - mean) ** 2).sum()), n - 1
    if prior:
        each = float(np.mean([1 / one.size for one in draws]))
        squares, df = squares + PRIOR_DF * (prior.between + prior.within * each), df + PRIOR_DF
    half = stdtrit(df, 0.975) * np.sqrt(squares / df / n) if df else np.inf
    return Interval(mean, float(half), n)

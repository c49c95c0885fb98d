"""When to train on hard examples: the error of a linear classifier in high dimension, in closed form."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

Kept = Literal["hard", "easy", "all"]
POINTS = 4_000
"""Of the midpoint rule for means over margins."""
RIDGES = np.geomspace(1e-4, 1e3, 43)
"""Among which the best is taken."""


@dataclass(frozen=True)
class Examples:
    """Examples x ~ N(0, I_d) with labels sign(w* . x), selected by the margin |w_g . x| of a guide w_g.

    Deliberate Practice (Askari-Hemmat et al. 2025) and "Why Less is More (Sometimes)" (Dohmatob et al. 2025)
    study selection in such a model; the derivation of `error` is ours.

    Parameters
    ----------
    per_dimension
        n / d of the n examples that are kept.
    right
        Share of right labels; the others are flipped at random.
    guide
        Cosine of w_g and w*, below 1.
    kept, share
        "hard" keeps that share of smallest margins, "easy" of largest.
    """

    per_dimension: float
    right: float = 1.0
    guide: float = 0.9
    kept: Kept = "all"
    share: float = 0.5

    def margins(self, quantile: NDArray[np.float64]) -> NDArray[np.float64]:
        """Margins that are kept at quantiles within (0, 1)."""
        low, high = {"all": (0.0, 1.0), "hard": (0.0, self.share), "easy": (1 - self.share, 1.0)}[self.kept]
        found: NDArray[np.float64] = ndtri((1 + low + (high - low) * quantile) / 2)
        return found


def error(e: Examples, ridge: ArrayLike) -> NDArray[np.float64]:
    """Test error of ridge regression on the labels, argmin |y - X w|^2 / n + ridge |w|^2, as n and d grow.

    With s = w_g . x, t the part of w* . x across w_g, and all other features, Z, independent of margins and
    labels: minimised over the weights of Z, the objective is that of (s, t) alone with ridge 1 / v, where v
    is the Stieltjes transform of Z Z^T / n at -ridge (Marchenko and Pastur 1967); Z fits what is left as
    noise.
    """
    s, cos, sin = e.margins((np.arange(POINTS) + 0.5) / POINTS), e.guide, np.sqrt(1 - e.guide**2)
    at, signal = cos * s / sin, 2 * e.right - 1
    # Covariances of the label with s and t, and the second moment of s; that of t is 1.
    along = signal * (s * (2 * ndtr(at) - 1)).mean()
    across = signal * (2 * np.exp(-(at**2) / 2) / np.sqrt(2 * np.pi)).mean()
    second, ratio, penalty = (s**2).mean(), 1 / e.per_dimension, np.asarray(ridge, dtype=float)
    b = 1 - penalty - ratio
    v = (b + np.sqrt(b**2 + 4 * penalty)) / (2 * penalty)
    w_along, w_across = along / (second + 1 / v), across / (1 + 1 / v)
    left = 1 - 2 * (along * w_along + across * w_across) + second * w_along**2 + w_across**2
    slope = -(v**2 + v) / (2 * penalty * v + penalty + ratio - 1)
    norm = np.sqrt(w_along**2 + w_across**2 + left * (v + penalty * slope))
    found: NDArray[np.float64] = np.arccos(np.clip((cos * w_along + sin * w_across) / norm, -1, 1)) / np.pi
    return found


def least_error(e: Examples) -> float:
    """The error at the best ridge."""
    return float(error(e, RIDGES).min())


def gain(e: Examples, right: float | None = None) -> float:
    """What hard examples, with another share of right labels, gain on as many of all kinds, in points."""
    hard = replace(e, kept="hard", right=e.right if right is None else right)
    return 100 * (least_error(replace(e, kept="all")) - least_error(hard))


def placed(rows: pd.DataFrame) -> pd.DataFrame:
    """Predicted gain of every setting of the map: factor, value, per_dimension, predicted; by analogy.

    By what was measured of it: the guide's accuracy A is that of a cosine cos(pi (1 - A)); labels are right
    in real images and where the judge recognises the class; n / d is where the predicted error is the
    unguided one. rows: as `phase_map.load`; without these measurements there is no line.
    """
    if "guide_right" not in rows:
        return pd.DataFrame(columns=["factor", "value", "per_dimension", "predicted"])
    out = []
    for (factor, value), part in rows.groupby(["factor", "value"], sort=False):
        means = part.groupby("arm")[["overall", "recognised", "guide_right", "real_share"]].mean()
        arms: dict[Any, dict[Any, Any]] = (means / 100).to_dict("index")
        of, share = arms["unguided"], 100 * arms["unguided"]["real_share"]
        right = {arm: share + (1 - share) * mean["recognised"] for arm, mean in arms.items()}
        cosine = np.clip(np.cos(np.pi * (1 - of["guide_right"])), 0, 0.9999)
        known = Examples(1.0, right["unguided"], float(cosine))

        def missed(log: float, known: Examples = known, overall: float = of["overall"]) -> float:
            """How far the predicted error is above the measured one."""
            return least_error(replace(known, per_dimension=10**log)) - min(1 - overall, 0.49)

        at = replace(known, per_dimension=10 ** brentq(missed, -6, 6, xtol=1e-3))
        out.append((factor, value, at.per_dimension, gain(at, right["guided"])))
    return pd.DataFrame(out, columns=["factor", "value", "per_dimension", "predicted"])


def simulated(e: Examples, ridge: float, dimension: int, seed: int) -> float:
    """The same error of one training in `dimension` dimensions."""
    rng = np.random.default_rng(seed)
    n = round(e.per_dimension * dimension)
    x = rng.standard_normal((n, dimension))
    x[:, 0] = e.margins(rng.random(n)) * rng.choice([-1, 1], n)
    truth = np.zeros(dimension)
    truth[:2] = e.guide, np.sqrt(1 - e.guide**2)
    y = np.sign(x @ truth) * np.where(rng.random(n) < e.right, 1, -1)
    w = np.linalg.solve(x.T @ x / n + ridge * np.eye(dimension), x.T @ y / n)
    return float(np.arccos(w @ truth / np.linalg.norm(w)) / np.pi)

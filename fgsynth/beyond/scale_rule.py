"""A feedback scale per class from few pilot images, by what a held-out classifier still recognises."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.plan import Method
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.models.networks import Classifier
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import stable_seed


@dataclass(frozen=True)
class ScaleRule:
    """What the rule found.

    method: its scale is the largest of the scales, its weights are what that is times for every group.
    scales: feedback scale of every group, equal within a class. n_pilot: images made to find them.
    table: one row per class and pilot scale with class, w, raw (mean over the class's pilot images), shrunk
    (towards the mean over classes) and recognised (monotone in w), as fractions.
    """

    method: Method
    scales: tuple[float, ...]
    n_pilot: int
    table: pd.DataFrame


def held_out(exp: Experiment) -> Classifier:
    """The held-out estimate: balanced softmax by the experiment's recipe, on real images, of its own seed.

    Not the guide, which feedback makes unsure of an image whatever the image shows. Both are trained on
    the same real images, so that what neither recognises goes unnoticed.
    """
    recipe = replace(exp.recipe, balanced=1.0, objective=None)
    return exp.trainings.train(recipe, stable_seed("held out", exp.seed)).network


def class_probability(exp: Experiment, made: SyntheticSet, network: Classifier) -> NDArray[np.float64]:
    """Softmax probability of every image's own label, (n,), by a network."""
    probability = exp.outputs(network, made.images)[0].double().softmax(1).numpy()
    return probability[np.arange(len(probability)), made.index["label"].to_numpy()]


def feedback_scales(
    exp: Experiment, method: Method, grid: Sequence[float], per_group: int, level: float
) -> ScaleRule:
    """Feedback scales without a sweep: a class's w at which a share `level` of its recognisability is left.

    method: what guides; its own scale and weights are not used. grid: pilot scales from 0 up. per_group:
    pilot images of every group at each of them, of equal seeds; the groups of a class are pooled.
    level: how much of the unguided images' recognisability the guided ones keep, in (0, 1).
    Recognisability is the probability of an image's label by `held_out`: shrunk, made monotone and read off
    by `shrunk`, `monotone` and `read_off`. Costs len(grid) * per_group * groups images and one training; a
    sweep costs a full set and a training at every point. FG chooses one w for all classes by a sweep; this
    rule is ours. Raises UserError as `shrunk`, and for a grid that does not rise from 0.
    """
    if len(grid) < 2 or grid[0] != 0 or not (np.diff(grid) > 0).all():
        raise UserError(f"Pilot scales {list(grid)}: give 0 and at least one larger, rising.")
    values = pilot(exp, method, grid, per_group, held_out(exp))
    even = np.stack([shrunk(each) for each in values])
    smooth = np.stack([monotone(grid, curve) for curve in even.T], 1)
    by_class = [read_off(grid, curve, level) for curve in smooth.T]
    m = exp.bench.manifest
    scales = tuple(float(w) for w in np.repeat(by_class, len(m.contexts)))
    raw = np.array([[one.mean() for one in each] for each in values])
    columns = {"raw": raw, "shrunk": even, "recognised": smooth}
    table = pd.DataFrame(
        {
            "class": np.repeat(np.array(m.classes, dtype=object), len(grid)),
            "w": np.tile(np.asarray(grid, dtype=float), len(m.classes)),
            **{name: of.T.ravel() for name, of in columns.items()},
        }
    )
    return ScaleRule(weighted(method, scales), scales, len(grid) * per_group * len(scales), table)


def pilot(
    exp: Experiment, method: Method, grid: Sequence[float], per_group: int, network: Classifier
) -> list[list[NDArray[np.float64]]]:
    """Recognisability of pilot images: by grid scale and class, one value per image.

    The seeds are those of every synthetic set, the same at every scale, so that the images are paired.
    """
    groups = exp.n_classes * len(exp.bench.manifest.contexts)
    each = np.full(groups, per_group, dtype=np.int64)
    found = []
    for w in grid:
        # Without feedback at 0, which is as good as scale 0 and spares the guide.
        at = replace(method, scale=float(w), weights=(), criteria=method.criteria if w else ())
        made = exp.synthetic(at, per_group=each)
        value, label = class_probability(exp, made, network), made.index["label"].to_numpy()
        found.append([value[label == c] for c in range(exp.n_classes)])
    return found


def shrunk(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Empirical Bayes: class means shrunk to the mean over classes, (c,) from (n_c,) values of each.

    The posterior mean m + k_c (r_c - m), k_c = n_c rho / (1 + (n_c - 1) rho), of a beta-binomial model with
    mean m over classes and intraclass correlation rho; of 0/1 values and equal n_c, Kleinman (1973), JASA 68.
    rho is that of the analysis of variance, (MSB - MSW) / (MSB + (n - 1) MSW) with n the mean number, from 0
    to 1, which takes probabilities too; then k = 1 - MSW / MSB: where classes differ no more than images of
    a class do, all get the mean. A single class is left as it is.
    Raises UserError for a class of fewer than two values.
    """
    n = np.array([len(one) for one in values])
    if (n < 2).any():
        raise UserError(
            f"Class {int((n < 2).argmax())} has fewer than two pilot images: make two of each at least."
        )
    r = np.array([one.mean() for one in values])
    if len(values) == 1:
        return r
    m = r.mean()
    between = float((n * (r - m) ** 2).sum() / (len(n) - 1))
    within = float(sum(((one - one.mean()) ** 2).sum() for one in values) / (n - 1).sum())
    total = between + (n.mean() - 1) * within
    rho = max(0.0, (between - within) / total) if total > 0 else 0.0
    shrunken: NDArray[np.float64] = m + n * rho / (1 + (n - 1) * rho) * (r - m)
    return shrunken


def monotone(grid: Sequence[float], curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """Isotonic regression, falling in w: the nearest falling curve in least squares (Barlow et al. 1972)."""
    fitted: NDArray[np.float64] = IsotonicRegression(increasing=False).fit_transform(np.asarray(grid), curve)
    return fitted


def read_off(grid: Sequence[float], curve: NDArray[np.float64], level: float) -> float:
    """The smallest w at which a falling curve is down to `level` times its start, linear between points.

    curve: (len(grid),). The largest w where it never falls so far.
    """
    wanted = level * curve[0]
    below = np.flatnonzero(curve <= wanted)
    if not len(below):
        return float(grid[-1])
    i = int(below[0])
    if i == 0:
        # What is never recognised has nothing to lose and nothing to show: it is not pushed.
        return 0.0
    share = (curve[i - 1] - wanted) / (curve[i - 1] - curve[i])
    return float(grid[i - 1] + share * (grid[i] - grid[i - 1]))


def weighted(method: Method, scales: Sequence[float]) -> Method:
    """A method with these scales: w is the largest, weights (groups,) are the others' shares of it."""
    top = max(scales)
    return replace(method, scale=top, weights=tuple(w / top if top else 1.0 for w in scales))

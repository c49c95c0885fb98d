"""A fixed budget of synthetic images, spent where a power law of the errors expects them to gain most."""

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fgsynth.data.benchmark import group_of
from fgsynth.experiments.experiment import Experiment
from fgsynth.utils.errors import UserError


def validation_errors(exp: Experiment, seeds: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Smoothed validation errors of classifiers of real images alone, and training counts: (g,) twice.

    Groups are classes in contexts. (wrong + 1) / (n + 2) of n validation images (Laplace's rule), wrong
    being the mean over seeds; a group without validation images has the error of its class in all contexts.
    Raises UserError for a class without validation images.
    """
    m = exp.bench.manifest
    exp.trainings.train_all([(exp.recipe, seed, None) for seed in seeds], "val")
    rows = m.rows("val")
    predicted = [
        exp.trainings.predicted(
            exp.trainings.train(exp.recipe, seed).network, "val", exp.trainings.folder(exp.recipe, seed)
        )
        for seed in seeds
    ]
    wrong = (np.stack(predicted) != rows["label"].to_numpy()).mean(0)
    shape = len(m.classes), len(m.contexts)
    group = group_of(rows, m).to_numpy()
    n = np.bincount(group, minlength=shape[0] * shape[1]).reshape(shape)
    missed = np.bincount(group, wrong, minlength=n.size).reshape(shape)
    if (unseen := np.flatnonzero(n.sum(1) == 0)).size:
        raise UserError(
            f"{m.name}: class '{m.classes[unseen[0]]}' has no validation image to estimate its error: add "
            "some, or fill up to equal counts."
        )
    pooled = (missed.sum(1, keepdims=True) + 1) / (n.sum(1, keepdims=True) + 2)
    errors = np.where(n > 0, (missed + 1) / (n + 2), pooled)
    return errors.ravel(), m.fill_counts().numpy()


def exponent(errors: ArrayLike, counts: ArrayLike) -> float:
    """B of the power law e_g(n) = a_g (n + 1)^-b by least squares of log error on log (count + 1).

    One b for all groups, as one group has one count (Cortes et al. 1994; Hestness et al. 2017: errors fall
    with the training set by a power law). n + 1, as a group may have no real image. Groups of few images
    may be hard for another reason too, which b takes for want of images.
    errors: (g,) in (0, 1]; counts: (g,). Raises UserError for equal counts, and where errors do not fall as
    counts grow.
    """
    e, x = np.asarray(errors, dtype=float), np.log(np.asarray(counts) + 1.0)
    if np.ptp(x) == 0:
        raise UserError(
            "All groups have as many training images, which fits no power law: give each as many new ones."
        )
    x = x - x.mean()
    b = -float((x * np.log(e)).sum() / (x * x).sum())
    # Errors that are equal but for rounding show no gain either.
    if b < 1e-9:
        raise UserError(
            f"Validation errors do not fall as training images grow (exponent {b:.3g}): they show no gain "
            "from more images; fill up to equal counts instead, or take more seeds or validation images."
        )
    return b


def allocate(
    errors: ArrayLike,
    counts: ArrayLike,
    budget: int,
    worth: float,
    worst: bool = False,
    law: float | None = None,
) -> NDArray[np.int64]:
    """Greedy allocation: each image goes where the modelled error falls most, (g,) that sum to the budget.

    errors, counts: (g,), the groups' validation errors and real images. The law of `exponent`, a_g by the
    group's own error; a synthetic image counts as `worth` real ones, in (0, 1]. The mean error over groups
    is lowered, or with `worst` the largest one, which the next image goes to. law: its exponent b where it
    is known, else it is fitted, with the errors of `exponent`. Of equal groups the first comes first. Gains
    of a group shrink from image to image, so that greedy is the optimum (Fox 1966).
    """
    b = exponent(errors, counts) if law is None else law
    e, n = np.asarray(errors, dtype=float), np.asarray(counts)

    def modelled(group: int, made: int) -> float:
        """Error of a group with so many synthetic images, by the law."""
        # a_g cancels: the group's own error is where its curve starts.
        return float(e[group] * ((n[group] + 1 + worth * made) / (n[group] + 1)) ** -b)

    def urgency(group: int, made: int) -> float:
        """What decides who gets the next image: the error, or how much it would fall."""
        now = modelled(group, made)
        return now if worst else now - modelled(group, made + 1)

    given = np.zeros(len(e), dtype=np.int64)
    heap = [(-urgency(group, 0), group) for group in range(len(e))]
    heapq.heapify(heap)
    for _ in range(budget):
        group = heap[0][1]
        given[group] += 1
        heapq.heapreplace(heap, (-urgency(group, int(given[group])), group))
    return given

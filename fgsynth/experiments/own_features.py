"""One's own photographs in feature space: probes and synthetic features over random splits, and a verdict."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn.functional import normalize

from fgsynth.config.names import (
    BALANCED_SOFTMAX,
    CHOSEN_OR_NONE,
    CHOSEN_SAMPLER,
    ERM,
    SHRINKAGE_LDA_CORRECTED,
    SHRUNK_LDA,
    TAU_CHOSEN,
)
from fgsynth.data.benchmark import FEW_BELOW, strata
from fgsynth.evaluate.metrics import Interval, per_class_accuracy, split_interval
from fgsynth.evaluate.tables import COMPARED
from fgsynth.latent.estimator import LatentClassifier
from fgsynth.latent.estimator_cv import TAUS, LatentClassifierCV
from fgsynth.latent.features.feature_set import REST, FeatureSet
from fgsynth.latent.features.own import Drawn
from fgsynth.latent.probe.references import shrinkage_lda, shrunk_lda
from fgsynth.latent.samplers.registry import SAMPLERS
from fgsynth.utils.parallel import memory
from fgsynth.utils.seeds import stable_seed

MARGIN = 0.5
"""Points of mean class accuracy below which a difference is not worth a practitioner's while."""
TOLERANCE = 0.2
"""Of the probes: a bound, their objectives are within a percent of the minimum. On photographs no setting is
worse than at a quarter of it, and the descents take half the time."""
MORE = 10
"""Photographs more of a class, whose worth the curve over shots tells."""
Bools = NDArray[np.bool_]
Choice = tuple[str | None, float, float]
"""Sampler (None: without), weight decay and tau."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Predictions of one split.

    held: (n,) which images are tested; predicted: method -> class of every image, (n,); chosen: method ->
    its choice, of those that have one; scores: cross-validated mean class
    accuracies, (samplers with None first, weight decays from the largest, taus).
    """

    seed: int
    held: Bools
    predicted: Mapping[str, NDArray[np.int64]]
    chosen: Mapping[str, Choice]
    scores: NDArray[np.float64]


def processes(data: FeatureSet) -> int:
    """How many splits half of the memory holds at a time, one at least and no more than there are cores.

    Each holds classes filled to the largest, as drawn and joined, and all features in double precision.
    """
    counts, (n, k) = data.counts(), data.features.shape
    each = k * (2 * 4 * len(counts) * int(counts.max()) + 3 * 8 * n)
    return max(1, min(os.cpu_count() or 1, memory() // 2 // each))


def score(
    data: FeatureSet, seed: int, samplers: Sequence[str], weight_decays: Sequence[float], folds: int
) -> Scored:
    """Fit every method on a split's training features: settings by cross-validation within them alone."""
    x, y = data.part("train")
    cv = LatentClassifierCV(
        (None, *samplers), weight_decays=weight_decays, cv=folds, tolerance=TOLERANCE, random_state=seed
    )
    with warnings.catch_warnings():
        # A probe of little weight decay may stop early; it is held against the others as it is.
        warnings.simplefilter("ignore", ConvergenceWarning)
        cv.fit(x.numpy(), y.numpy())
        chosen = choices(cv.scores_, samplers, weight_decays)
        own = (cv.sampler_, cv.weight_decay_, cv.tau_)
        models = {choice: fit(x, y, choice, seed) if choice != own else cv for choice in set(chosen.values())}
    predicted = {method: models[choice].predict(data.features.numpy()) for method, choice in chosen.items()}
    c = len(data.classes)
    untrained = {
        SHRINKAGE_LDA_CORRECTED: shrinkage_lda(x, y, c, corrected=True),
        SHRUNK_LDA: shrunk_lda(x, y, c),
    }
    predicted |= {method: probe.predict(data.features).numpy() for method, probe in untrained.items()}
    return Scored(seed, data.split == "test", predicted, chosen, cv.scores_)


def choices(
    scores: NDArray[np.float64], samplers: Sequence[str], weight_decays: Sequence[float]
) -> dict[str, Choice]:
    """What each method takes of the settings that it allows, by cross-validated `scores` as of `Scored`."""
    every, decays, taus = (None, *samplers), sorted(weight_decays, reverse=True), list(TAUS)
    allowed: dict[str, tuple[slice, slice]] = {
        ERM: (slice(0, 1), slice(0, 1)),
        BALANCED_SOFTMAX: (slice(0, 1), slice(taus.index(1.0), taus.index(1.0) + 1)),
        TAU_CHOSEN: (slice(0, 1), slice(None)),
        CHOSEN_SAMPLER: (slice(1, None), slice(None)),
        CHOSEN_OR_NONE: (slice(None), slice(None)),
    }
    found: dict[str, Choice] = {}
    for method, (of_samplers, of_taus) in allowed.items():
        mine = np.full(scores.shape, -np.inf)
        mine[of_samplers, :, of_taus] = np.nan_to_num(scores[of_samplers, :, of_taus], nan=-np.inf)
        i, j, k = np.unravel_index(int(mine.argmax()), mine.shape)
        found[method] = every[int(i)], decays[int(j)], taus[int(k)]
    return found


def fit(x: Tensor, y: Tensor, choice: Choice, seed: int) -> LatentClassifier:
    """The classifier of a choice, fitted to features (n, k) and labels (n,)."""
    sampler, decay, tau = choice
    model: LatentClassifier = LatentClassifier(
        sampler, weight_decay=decay, tau=tau, tolerance=TOLERANCE, random_state=seed
    )
    return model.fit(x.numpy(), y.numpy())


def metrics_of(counts: Tensor) -> dict[str, Bools]:
    """Which classes each metric is the mean accuracy of, (c,); strata without a class are left out."""
    kind = strata(counts.numpy())
    parts = {"average": np.ones(len(kind), dtype=bool)} | {k: kind == k for k in ("many", "medium", "few")}
    return {name: mine for name, mine in parts.items() if mine.any()}


def table(scored: Sequence[Scored], label: Tensor, counts: Tensor) -> pd.DataFrame:
    """Tabulate mean class accuracies (%) of the tested images: method, seed, one column per metric."""
    rows = []
    for one in scored:
        for method, predicted in one.predicted.items():
            each = per_class_accuracy(predicted[one.held], label.numpy()[one.held], len(counts))
            means = {m: np.nanmean(each[mine]) for m, mine in metrics_of(counts).items()}
            rows.append({"method": method, "seed": one.seed} | means)
    return pd.DataFrame(rows)


def gain(
    scored: Sequence[Scored], label: Tensor, method: str, reference: str, classes: Bools
) -> Interval | None:
    """Mean class accuracy of a method over a reference, on some classes (c,); None where none is tested."""
    y, held = label.numpy(), np.stack([one.held for one in scored])
    mine = classes[y]
    if not held[:, mine].any():
        return None
    hits = [np.stack([one.predicted[m] == y for one in scored])[:, mine] for m in (method, reference)]
    return split_interval(hits[0], hits[1], held[:, mine], y[mine])


def effects(scored: Sequence[Scored], label: Tensor, counts: Tensor, name: str) -> pd.DataFrame:
    """Compare every method with the best probe of real features alone, by metric: a row of COMPARED each."""
    rows = []
    for method in scored[0].predicted:
        for metric, mine in metrics_of(counts).items() if method != TAU_CHOSEN else ():
            if d := gain(scored, label, method, TAU_CHOSEN, mine):
                rows.append((name, method, TAU_CHOSEN, metric, d.mean, d.low, d.high, d.n, "test"))
    return pd.DataFrame(rows, columns=COMPARED[1:])


def verdict(compared: pd.DataFrame, n_classes: int) -> str:
    """Say whether synthetic features are worth it, in words that follow from the intervals alone."""
    keys = zip(compared["method"].tolist(), compared["metric"].tolist(), strict=True)
    of = dict(zip(keys, compared[["mean", "low", "high"]].to_numpy(dtype=float).tolist(), strict=True))

    def said(method: str, metric: str) -> str:
        return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*of[method, metric])

    mean, low, high = of[CHOSEN_SAMPLER, "average"]
    if low > 0:
        word = "worth it" if mean >= MARGIN else f"a gain, but of less than {MARGIN} points"
    elif high < 0:
        word = "not worth it: they cost"
    elif max(-low, high) <= MARGIN:
        word = f"not worth it: they change less than {MARGIN} points either way"
    else:
        word = "not shown to be worth it"
    few = ""
    if (CHOSEN_SAMPLER, "few") in of:
        few = f", that of classes of fewer than {FEW_BELOW} images by {said(CHOSEN_SAMPLER, 'few')}"
    lines = [
        f"On your {n_classes} classes synthetic features change the mean class accuracy by "
        f"{said(CHOSEN_SAMPLER, 'average')} points over the best probe without"
        f"{few}: {word}.",
        f"Where cross-validation may choose none: {said(CHOSEN_OR_NONE, 'average')}.",
        f"What a plain probe leaves to gain: {said(ERM, 'average')}.",
    ]
    better = [m for m in (SHRINKAGE_LDA_CORRECTED, SHRUNK_LDA) if of[m, "average"][1] > 0]
    lines += [f"Without any training {m} does better: {said(m, 'average')}." for m in better]
    return "\n".join(lines)


def changes(scored: Sequence[Scored], data: FeatureSet) -> pd.DataFrame:
    """Tabulate every class: images, accuracies (%), and what synthetic features change, the losers first."""
    counts, rows = data.counts(), []
    for y, name in enumerate(data.classes):
        only = np.arange(len(counts)) == y
        mine = data.label.numpy() == y
        row: dict[str, object] = {
            "class": name,
            "train": int(counts[y]),
            "test": int(scored[0].held[mine].sum()),
        }
        for method in (ERM, TAU_CHOSEN, CHOSEN_SAMPLER):
            right = [(s.predicted[method] == y)[mine & s.held] for s in scored]
            row[method] = 100 * float(np.concatenate(right).mean()) if len(right[0]) else np.nan
        d = gain(scored, data.label, CHOSEN_SAMPLER, TAU_CHOSEN, only)
        row |= {"gain": d.mean, "low": d.low, "high": d.high} if d else {}
        rows.append(row)
    return pd.DataFrame(rows).sort_values("gain", na_position="last")


def shots(data: FeatureSet, one: Scored, sizes: Sequence[int]) -> pd.DataFrame:
    """Accuracy of classes that are thinned to fewer training images, others as they are.

    Of the classes with more than the largest size a random half is thinned, to every size; settings are those
    chosen on the split. Rows: shots, method, class, accuracy (%), and the split's seed.
    """
    able = (data.counts() > max(sizes)).numpy() & np.isin(np.arange(len(data.classes)), data.part("test")[1])
    rng = np.random.default_rng(stable_seed("shots", one.seed))
    thinned = rng.permutation(np.flatnonzero(able))[: (able.sum() + 1) // 2]
    x, y = data.part("test")
    rows = []
    for n in sizes if len(thinned) else ():
        split = data.split.copy()
        for c in thinned:
            mine = np.flatnonzero((data.split == "train") & (data.label.numpy() == c))
            order = np.random.default_rng(stable_seed("shots", one.seed, int(c)))
            split[order.permutation(mine)[n:]] = REST
        fewer = replace(data, split=split)
        for method in (TAU_CHOSEN, CHOSEN_SAMPLER):
            predicted = fit(*fewer.part("train"), one.chosen[method], one.seed).predict(x.numpy())
            each = per_class_accuracy(predicted, y, len(data.classes))
            rows += [(n, method, data.classes[c], each[c], one.seed) for c in thinned]
    return pd.DataFrame(rows, columns=["shots", "method", "class", "accuracy", "seed"])


def ten_more(curve: pd.DataFrame) -> str:
    """Say what MORE photographs of a class bring, of classes as small as the curve has them."""
    mean = curve.groupby(["method", "shots"])["accuracy"].mean()
    if curve.empty:
        return "No class has enough images to be thinned: give smaller shots."
    sizes, lines = sorted(curve["shots"].unique()), []
    for n in sizes:
        if n + MORE in sizes:
            more, synthetic = mean[TAU_CHOSEN, n + MORE] - mean[TAU_CHOSEN, n], mean[CHOSEN_SAMPLER, n]
            lines.append(
                f"{MORE} more photographs of a class of {n}: {more:+.1f} points on that class; synthetic "
                f"features in their place: {synthetic - mean[TAU_CHOSEN, n]:+.1f}."
            )
    return "\n".join(lines) or f"No two of the shots are {MORE} apart."


def confused(scored: Sequence[Scored], data: FeatureSet, method: str, pairs: int) -> pd.DataFrame:
    """The pairs of classes that are taken for each other most: share of the class's tested images (%)."""
    y, c = data.label.numpy(), len(data.classes)
    seen = np.zeros((c, c))
    for one in scored:
        np.add.at(seen, (y[one.held], one.predicted[method][one.held]), 1)
    share = 100 * seen / seen.sum(1, keepdims=True).clip(min=1)
    np.fill_diagonal(share, 0)
    top = np.dstack(np.unravel_index(np.argsort(-share, axis=None)[:pairs], share.shape))[0]
    rows = [(data.classes[a], data.classes[b], share[a, b]) for a, b in top if share[a, b] > 0]
    return pd.DataFrame(rows, columns=["class", "taken for", "share"])


def neighbours(
    data: FeatureSet, sampler: str, classes: int, each: int
) -> tuple[list[int], NDArray[np.int64], float]:
    """Find the training image nearest to each synthetic feature of the rarest classes.

    By the cosine about the training mean. Returns the classes, rows (classes, each), and the share of them
    that is of the feature's own class (%).
    """
    x, y = data.part("train")
    rare = data.counts().argsort()[:classes].tolist()
    fitted, mean = SAMPLERS[sampler]().fit(x, y), x.mean(0)
    new = torch.stack([fitted.sample(c, each, 0) for c in rare])
    near = (normalize(new - mean, dim=2) @ normalize(x - mean).T).argmax(2)
    own = 100 * float((y[near] == torch.tensor(rare)[:, None]).double().mean())
    return rare, data.where("train")[near].numpy(), own


def final(
    data: Drawn, scored: Sequence[Scored], samplers: Sequence[str], weight_decays: Sequence[float]
) -> LatentClassifier:
    """Fit what the cross-validations of all splits together prefer, synthetic features or none.

    To the images of train and test.
    """
    scores = np.mean([one.scores for one in scored], axis=0)
    choice = choices(scores, samplers, weight_decays)[CHOSEN_OR_NONE]
    return fit(*data(0).part("train", "test"), choice, seed=0)

"""Sampler ablations: variants of one sampler on the same classes, seeds and conditions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fgsynth.config import names
from fgsynth.config.names import FRESH_REAL, UNGUIDED
from fgsynth.evaluate.scores import contents
from fgsynth.experiments import study
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.compose import entries_of
from fgsynth.generate.plan import Method, plan
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.guidance.feedback import Guidance, guide
from fgsynth.guidance.samplers import ddim
from fgsynth.miniworld.kinds import CLASSES
from fgsynth.utils.progress import progress

CRITERIA = ("entropy", "loss", "hardness")


@dataclass(frozen=True)
class Variant:
    """A method, and the settings of sampling in which it differs from the experiment's."""

    method: Method
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Variants on the same classes, seeds and conditions, beside real images.

    summary: one row per method; readings: one row per image; made: the synthetic sets by name.
    """

    summary: pd.DataFrame
    made: dict[str, SyntheticSet]
    readings: pd.DataFrame


def images_of(exp: Experiment, classes: Sequence[int], n: int) -> NDArray[np.int64]:
    """Images to make of every class, (c,): n of each of some, none of the others."""
    return n * np.isin(np.arange(exp.n_classes), classes).astype(np.int64)


def rarest(exp: Experiment, n: int) -> list[int]:
    """The n classes of the fewest real training images."""
    found: list[int] = exp.bench.manifest.counts().argsort(stable=True)[:n].tolist()
    return found


def real_set(exp: Experiment, per_class: NDArray[np.int64]) -> SyntheticSet:
    """The first `test` images of every class, (c,) of them: what a set of this size scores at best."""
    rows = exp.bench.manifest.rows("test")
    place = rows.groupby("label").cumcount()
    rows = rows[place < per_class[rows["label"]]].reset_index(drop=True)
    return SyntheticSet(rows.assign(non_finite=0), exp.bench.images(rows), "")


def readings(exp: Experiment, made: SyntheticSet, method: str) -> pd.DataFrame:
    """Tabulate the predictions of judge and guide for every image of a set, one row each.

    Columns: kind, context, mode and style, as the judge reads them; each criterion of the guide; wanted,
    the image's class; recognised, whether the judge reads it; method, seed, non_finite.
    """
    table = study.readings(exp, made)
    for name in CRITERIA:
        table[name] = study.criterion_of(exp, made, name).numpy()
    wanted = np.array(exp.bench.manifest.classes, dtype=object)[made.index["label"]]
    table = table.assign(wanted=wanted, recognised=table["kind"] == wanted)
    return table.assign(method=method, seed=exp.seed, non_finite=made.index["non_finite"].to_numpy())


def distance(table: pd.DataFrame, natural: pd.Series) -> float:
    """Total variation between shares of (class shown, mode, style) and those of the benchmark, in %.

    table: readings; natural: as `natural_shares`. A finite set of real images is not at 0 either.
    """
    shown = pd.Series(list(zip(table["recognised"], table["mode"], table["style"], strict=True)))
    shares = pd.concat([shown.value_counts(normalize=True), natural], axis=1).fillna(0)
    return float(50 * (shares.iloc[:, 0] - shares.iloc[:, 1]).abs().sum())


def natural_shares(exp: Experiment) -> pd.Series:
    """Shares of (True, mode, style) among the images of `final`, by their hidden factors."""
    factors = exp.bench.hidden("final")
    kinds = [(True, mode, style) for mode, style in zip(factors["mode"], factors["style"], strict=True)]
    return pd.Series(kinds).value_counts(normalize=True)


def compare(
    exp: Experiment, variants: Mapping[str, Variant], per_class: NDArray[np.int64], real: str = FRESH_REAL
) -> Comparison:
    """Sample every variant and count what its images show; `real` names the row of real images.

    The summary has what `scores.contents` counts, the distance to the benchmark's hidden factors in %, the
    mean of every criterion in nats, and the gradients that were not finite.
    Raises UserError where hidden factors are not known, as of photographs.
    """
    natural, made, rows, tables = natural_shares(exp), {}, [], []
    for name, variant in progress(variants.items(), f"variants of the sampler, seed {exp.seed}"):
        # The experiment itself where nothing changes, as its fitted criteria are kept.
        of = exp.sampled(**variant.changes) if variant.changes else exp
        made[name] = of.synthetic(variant.method, per_group=per_class)
    for name, one in {real: real_set(exp, per_class), **made}.items():
        table = readings(exp, one, name)
        tables.append(table)
        rows.append(
            {"method": name, "seed": exp.seed, **contents(one.index, table, exp.bench)}
            | {"distance": distance(table, natural), **table[list(CRITERIA)].mean()}
            | {"non_finite": table["non_finite"].sum()}
        )
    return Comparison(pd.DataFrame(rows), made, pd.concat(tables, ignore_index=True))


def gallery(
    exp: Experiment, classes: Sequence[int], n: int, scales: Sequence[float]
) -> tuple[NDArray[np.uint8], pd.DataFrame]:
    """Images of the same seeds, n of each of some classes: real, unguided, guided by criterion and scale.

    A grid (rows, columns, h, w, 3), a column per seed: its real condition image, the image without feedback,
    then every criterion at its scales. The table has a line per image: row, column, w and its readings.
    """
    p, each = exp.sampling.dropout, images_of(exp, classes, n)
    methods = {(UNGUIDED, 0.0): Method(dropout=p)}
    methods |= {(names.FG[c], s): Method(True, p, (c,), s) for c in CRITERIA for s in scales}
    made = {key: exp.synthetic(method, per_group=each) for key, method in methods.items()}
    index = made[UNGUIDED, 0.0].index
    train = exp.bench.manifest.rows("train").set_index("key", drop=False)
    real = train.loc[index["condition"]].reset_index(drop=True).assign(non_finite=0)
    sets = {(names.FRESH_REAL, 0.0): SyntheticSet(real, exp.bench.images(real), ""), **made}
    grid = np.stack([one.at(np.arange(len(index))).numpy() for one in sets.values()])
    tables = [
        readings(exp, one, name).assign(w=w, row=row, column=range(len(index)))
        for row, ((name, w), one) in enumerate(sets.items())
    ]
    return grid, pd.concat(tables, ignore_index=True)


def unlikeness(a: SyntheticSet, b: SyntheticSet) -> float:
    """Root mean square difference of two sets of images from the same seeds, in grey levels."""
    x, y = (one.at(np.arange(len(one.index))).float() for one in (a, b))
    return float((x - y).square().mean().sqrt())


def same_push(c: Comparison, pairs: Mapping[str, str], unguided: str = UNGUIDED) -> pd.DataFrame:
    """Measure how near variants come to guiding every step with the same total push (FG appendix F; C10).

    pairs: variant -> the one that guides every step. Columns method, seed; moved: how far guiding every step
    moves the images, apart: how far the variant's are from those, both in grey levels; kept: the share of the
    way that the variant goes with it, 100 (1 - apart / moved) in %: 100 if the images are the same, 0 or less
    if no guidance would be as near; NaN if guidance moves nothing.
    """
    rows, seed = [], int(c.summary["seed"].iloc[0])
    for name, every in pairs.items():
        moved, apart = (unlikeness(c.made[every], c.made[other]) for other in (unguided, name))
        kept = 100 * (1 - apart / moved) if moved else float("nan")
        rows.append((name, seed, moved, apart, kept))
    return pd.DataFrame(rows, columns=["method", "seed", "moved", "apart", "kept"])


def step_sets(exp: Experiment, n_steps: int) -> dict[str, SyntheticSet]:
    """Synthetic sets by the exact gradient of entropy at every 5th of n_steps and at every step (C10).

    At every step once with the same total push, a fifth of w, and once with the same w.
    """
    w, p = exp.sampling.scales["entropy"], exp.sampling.dropout
    every_step = names.EXACT_EVERY
    kinds = {names.EXACT_FIFTH: (5, w), every_step: (1, w / 5), names.variant(every_step, "w", w): (1, w)}
    return {
        name: exp.sampled(n_steps=n_steps, every=every, through_network=True).synthetic(
            Method(True, p, ("entropy",), scale)
        )
        for name, (every, scale) in kinds.items()
    }


def by_ambiguity(table: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Share of photographs of the right kind, by what is ambiguous about the class's name.

    table: readings. Columns ambiguity, method, seed, right (%).
    """
    chosen = table[table["method"].isin(methods)]
    right = 100.0 * (chosen["recognised"] & (chosen["style"] == "photo"))
    ambiguity = chosen["wanted"].map(lambda name: CLASSES[name].ambiguity)
    keys = ["ambiguity", "method", "seed"]
    grouped = chosen.assign(right=right, ambiguity=ambiguity).groupby(keys, sort=False)
    return grouped["right"].mean().reset_index()


def cosines(exp: Experiment, per_class: NDArray[np.int64], criterion: str = "entropy") -> pd.DataFrame:
    """Cosine similarity of the exact gradient with the cheap one, and with its own of some steps before.

    Along the path of the sampler without feedback, at every step; columns step, pair, image, cosine.
    """
    s, gen, method = exp.sampling, exp.generator, Method(dropout=exp.sampling.dropout)
    request = entries_of(plan(exp.bench, per_class, exp.seed), method, exp.bench, gen, s)
    predict = gen.predict(gen.embed_text(request.prompts), request.image, s.cfg)
    network, label = exp.guide.to(gen.device), request.label.to(gen.device)
    of = predict, network, exp.criterion(criterion), label, gen.schedule
    exact, cheap = (guide(*of, Guidance(through_network=through), gen.decode) for through in (True, False))
    past: list[Tensor] = []
    rows: list[tuple[int, str, int, float]] = []

    def followed(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """Predict as the exact gradient does, and note how like it the others are."""
        x0, eps, gradient = exact.gradient(z, t)
        pairs = {"exact, cheap": cheap.gradient(z, t)[2]}
        pairs |= {f"exact, {lag} steps before": past[-lag] for lag in (1, 4) if len(past) >= lag}
        for pair, other in pairs.items():
            each = cosine_similarity(gradient.flatten(1), other.flatten(1)).tolist()
            rows.extend((len(past), pair, i, c) for i, c in enumerate(each))
        past.append(gradient)
        return x0, eps

    ddim(followed, gen.noise(request.seeds), gen.schedule)
    return pd.DataFrame(rows, columns=["step", "pair", "image", "cosine"])

"""The comparison in feature space: references, samplers and the full set, settings chosen on validation."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from time import perf_counter
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from fgsynth.config.names import (
    BALANCED_SOFTMAX,
    CHOSEN_SAMPLER,
    ERM,
    FULL_SET,
    NEAREST_MEAN,
    NEAREST_NEIGHBOURS,
    SHRINKAGE_LDA,
    SHRINKAGE_LDA_CORRECTED,
    SHRUNK_LDA,
    TAU_CHOSEN,
    WHITENED,
)
from fgsynth.evaluate.metrics import Interval, interval, long_tail_accuracy
from fgsynth.guidance.criteria import Criterion, Hardness, entropy, loss
from fgsynth.guidance.feedback import Guidance
from fgsynth.latent.checks import by_class
from fgsynth.latent.features.feature_set import REST, FeatureSet
from fgsynth.latent.probe.linear import Predictor, Probe, average_accuracy, path, select
from fgsynth.latent.probe.references import (
    NearestNeighbours,
    nearest_class_mean,
    nearest_neighbours,
    shrinkage_lda,
    shrunk_lda,
)
from fgsynth.latent.samplers.base import LatentSampler, fill_counts
from fgsynth.latent.samplers.diffusion import FeatureDiffusion, Feedback, feature_classifier
from fgsynth.latent.samplers.filters import NearestKept, OnSphere
from fgsynth.latent.samplers.registry import SAMPLERS
from fgsynth.latent.shrinkage import Whitening
from fgsynth.utils.parallel import threads_for
from fgsynth.utils.seeds import stable_seed

METRICS = ("overall", "many", "medium", "few")
TAUS = (0.0, 0.5, 1.0, 1.5)
N_STEPS, EVERY = 12, 2
"""Of DDIM in feature space: six guided steps, at the same places of the path as every fifth of thirty."""


def scaling(data: FeatureSet) -> tuple[Tensor, Tensor]:
    """The training mean (k,) and the root mean square of a feature's entries about it."""
    train = data.part("train")[0]
    return train.mean(0), (train - train.mean(0)).square().mean().sqrt()


def scaled(data: FeatureSet) -> FeatureSet:
    """Centre features at the training mean and scale them to mean squared length k: one scale of decays."""
    mean, size = scaling(data)
    return replace(data, features=(data.features - mean) / size)


def whitened(data: FeatureSet) -> FeatureSet:
    """Features white within the training classes, scaled as by `scaled`."""
    forward = Whitening.fit(by_class(*data.part("train"))).forward
    return scaled(replace(data, features=data.features @ forward))


@dataclass(frozen=True, eq=False)
class Draw:
    """One draw of a long-tailed feature set, on which methods are fitted and chosen by validation.

    data: scaled features; seed: of the draw and of everything fitted on it; weight_decays: of every probe,
    and neighbours: the k of nearest neighbours, from which validation chooses; scale, updates: feedback scale
    w, and updates of the feature diffusion; final: a set without validation, on which each method is fitted
    again as chosen.
    """

    data: FeatureSet
    seed: int
    weight_decays: Sequence[float]
    scale: float = 0.03
    updates: int = 600
    neighbours: Sequence[int] = (1, 3, 5, 10, 20)
    final: FeatureSet | None = None

    @property
    def split(self) -> str:
        """The split that is reported: the one drawn for tables alone, where the benchmark has one."""
        return "final" if "final" in self.data.split else "test"

    @cached_property
    def train(self) -> tuple[Tensor, Tensor]:
        """Real training features (n, k) and labels (n,)."""
        return self.data.part("train")

    @cached_property
    def counts(self) -> Tensor:
        """Real training features per class, (c,)."""
        return self.data.counts()

    @cached_property
    def guide(self) -> Probe:
        """The guide: the probe by cross entropy on the imbalanced real features (FG step 1)."""
        return self.probe(*self.train, (0.0,))[0]

    @cached_property
    def diffusion(self) -> FeatureDiffusion:
        """The diffusion in feature space, fitted once for guided and unguided sampling."""
        return FeatureDiffusion(self.updates, n_steps=N_STEPS, seed=self.seed).fit(*self.train)

    def guided(self, criterion: str) -> FeatureDiffusion:
        """The same diffusion under feedback of the guide by a criterion."""
        criteria: dict[str, Callable[[], Criterion]] = {
            "entropy": lambda: entropy,
            "loss": lambda: loss,
            "hardness": lambda: Hardness.fit(*self.train, len(self.counts)),
        }
        classifier = feature_classifier(self.guide.logits)
        return self.diffusion.guided_by(
            Feedback(criteria[criterion](), classifier, Guidance(self.scale, every=EVERY))
        )

    def probe(self, features: Tensor, label: Tensor, taus: Iterable[float]) -> tuple[Probe, float]:
        """Fit a probe, its weight decay and tau chosen by average validation accuracy.

        Cross entropy, then logits - tau log prior of the real counts (Menon et al. 2021, eq. 9). Tau = 1 is
        balanced softmax to the letter: its shift by the prior is taken up by a bias that is not decayed.
        """
        plain = path(features, label, len(self.counts), self.weight_decays)
        candidates = [(probe.adjusted(self.counts, tau), tau) for tau in taus for probe in plain]
        if len(candidates) == 1:
            return candidates[0]
        best = select(*self.data.part("val"), [probe for probe, _ in candidates])
        return next((probe, tau) for probe, tau in candidates if probe is best)

    def filled(self, sampler: LatentSampler, amount: float = 1.0) -> tuple[Tensor, Tensor]:
        """Real features, and `amount` times what every class lacks of the largest, synthetic."""
        features, label = self.train
        missing = fill_counts(label, len(self.counts)).double().mul(amount).round().long()
        new, classes = sampler.sample_all(missing, stable_seed("latent study", self.seed))
        return torch.cat([features, new]), torch.cat([label, classes])

    def synthetic(self, method: str, amount: float = 1.0) -> dict[str, Any]:
        """Row of a probe on real and synthetic features; its tau is chosen, as filling leaves less to do."""
        return self._tuned(method, lambda draw: draw.filled(METHODS[method](draw), amount), TAUS)

    def reference(self, method: str) -> dict[str, Any]:
        """Row of a method without synthetic features, or of the full balanced set."""
        if method == WHITENED:
            final = None if self.final is None else whitened(self.final)
            draw = replace(self, data=whitened(self.data), final=final)
            return draw.reference(TAU_CHOSEN) | {"method": WHITENED}
        if method == TAU_CHOSEN:
            return self._tuned(method, lambda draw: draw.train, TAUS)
        start = perf_counter()
        fitted = REFERENCES[method](self)
        row = self.row(method, fitted, perf_counter() - start)
        return row if self.final is None else self._again(row).reference(method) | {"val": row["val"]}

    def _tuned(
        self, method: str, train: Callable[["Draw"], tuple[Tensor, Tensor]], taus: Sequence[float]
    ) -> dict[str, Any]:
        """Row of a probe on the features that a method trains on, tau chosen with the weight decay."""
        start = perf_counter()
        probe, tau = self.probe(*train(self), taus)
        row = self.row(method, probe, perf_counter() - start) | {"tau": tau}
        if self.final is None:
            return row
        return self._again(row)._tuned(method, train, [tau]) | {"val": row["val"]}

    def row(self, method: str, predictor: Predictor, seconds: float) -> dict[str, Any]:
        """Row of a table: accuracies by stratum on `split`, average on validation, seconds of fitting."""
        x, y = self.data.part(self.split)
        accuracies = long_tail_accuracy(predictor.predict(x), y, self.counts)
        row = {"method": method, "seed": self.seed, **accuracies, "seconds": seconds}
        if isinstance(predictor, Probe):
            row |= {"weight_decay": predictor.weight_decay, "trainable": float(predictor.weight.numel())}
        if isinstance(predictor, NearestNeighbours):
            row |= {"k": predictor.k}
        if "val" in self.data.split:
            x, y = self.data.part("val")
            row["val"] = average_accuracy(predictor.predict(x), y)
        return row

    def _again(self, row: dict[str, Any]) -> "Draw":
        """The final set, with the settings of a row alone."""
        assert self.final is not None
        decays = [row["weight_decay"]] if "weight_decay" in row else self.weight_decays
        return replace(self, data=self.final, final=None, weight_decays=decays, neighbours=[row.get("k", 1)])


def _fitted(make: Callable[[], LatentSampler], draw: Draw) -> LatentSampler:
    return make().fit(*draw.train)


def _guided(criterion: str, draw: Draw) -> LatentSampler:
    return draw.guided(criterion)


def _nearest_neighbours(draw: Draw) -> NearestNeighbours:
    # One k needs no validation, and the final set has none.
    split = "val" if len(draw.neighbours) > 1 else "train"
    return nearest_neighbours(*draw.train, len(draw.counts), *draw.data.part(split), draw.neighbours)


GAUSSIAN = SAMPLERS["class gaussian"]
METHODS: dict[str, Callable[[Draw], LatentSampler]] = {
    **{name: partial(_fitted, make) for name, make in SAMPLERS.items()},
    "class gaussian, nearest half": partial(_fitted, lambda: NearestKept(GAUSSIAN())),
    "class gaussian, unit sphere": partial(_fitted, lambda: OnSphere(GAUSSIAN())),
    "feature diffusion": lambda draw: draw.diffusion,
    **{f"feature diffusion, FG {c}": partial(_guided, c) for c in ("entropy", "loss", "hardness")},
}
"""Fitted samplers of synthetic features, by the method's name."""

REFERENCES: dict[str, Callable[[Draw], Predictor]] = {
    ERM: lambda draw: draw.guide,
    BALANCED_SOFTMAX: lambda draw: draw.probe(*draw.train, (1.0,))[0],
    NEAREST_MEAN: lambda draw: nearest_class_mean(*draw.train, len(draw.counts)),
    SHRINKAGE_LDA: lambda draw: shrinkage_lda(*draw.train, len(draw.counts)),
    SHRINKAGE_LDA_CORRECTED: lambda draw: shrinkage_lda(*draw.train, len(draw.counts), corrected=True),
    SHRUNK_LDA: lambda draw: shrunk_lda(*draw.train, len(draw.counts)),
    NEAREST_NEIGHBOURS: _nearest_neighbours,
    FULL_SET: lambda draw: draw.probe(*draw.data.part("train", REST), (0.0,))[0],
}
"""Without synthetic features; the last is the bound, trained on more than long-tailed methods have."""
REFERENCE_NAMES = (ERM, BALANCED_SOFTMAX, TAU_CHOSEN, WHITENED, *list(REFERENCES)[2:])

PROBES, LDAS = (TAU_CHOSEN, WHITENED), (SHRINKAGE_LDA_CORRECTED, SHRUNK_LDA)
"""The references that synthetic features have to beat: tuned probes, and what class means do alone."""
LDA = "LDA"


def compare(draw: Draw, methods: Iterable[str]) -> pd.DataFrame:
    """Compare all references and the named methods on one draw, and the method that validation prefers."""
    with threads_for(draw.data.features.numel() * len(draw.counts)):
        names = [name for name in REFERENCE_NAMES if name != FULL_SET or REST in draw.data.split]
        rows = [draw.reference(name) for name in names]
        made = [draw.synthetic(name) for name in methods]
    best = max(made, key=lambda row: float(row["val"]))
    return pd.DataFrame([*rows, *made, best | {"method": CHOSEN_SAMPLER}])


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """Subtract balanced softmax of the same set and seed: set, method, seed, metric, gain (points)."""
    keys = ["set", "seed", "metric"]
    long = rows.melt(["set", "method", "seed"], list(METRICS), "metric", "value").dropna(subset="value")
    against = long[long["method"] == BALANCED_SOFTMAX].set_index(keys)["value"]
    long["gain"] = long["value"] - against.reindex(pd.MultiIndex.from_frame(long[keys])).to_numpy()
    return long[long["method"] != BALANCED_SOFTMAX].drop(columns="value")


def over_best(
    rows: pd.DataFrame, method: str, references: Sequence[str], metric: str, by: Sequence[str]
) -> pd.DataFrame:
    """Subtract, draw by draw, the reference that validation prefers: columns `by`, seed and gain (points)."""
    keys = [*by, "seed"]
    mine = rows[rows["method"].isin(references)].reset_index(drop=True)
    best = mine.loc[mine.groupby(keys)["val"].idxmax()].set_index(keys)[metric]
    made = rows[rows["method"] == method]
    return (made.set_index(keys)[metric] - best).dropna().rename("gain").reset_index()


def conditions(rows: pd.DataFrame, sampler: str, metric: str, by: Sequence[str]) -> pd.DataFrame:
    """Say where a sampler gains over references that are tuned as well, and where LDA alone does it.

    rows: of all draws. Columns: `by`, and in points with their 95 % intervals over draws the gains of the
    sampler over the probe and over the LDA that validation prefers, and of that LDA over that probe.
    """
    lda = rows[rows["method"].isin(LDAS)].reset_index(drop=True)
    lda = lda.loc[lda.groupby([*by, "seed"])["val"].idxmax()].assign(method=LDA)
    every = pd.concat([rows, lda])
    pairs = {
        "sampler - probe": (sampler, PROBES), "sampler - LDA": (sampler, LDAS), "LDA - probe": (LDA, PROBES),
    }  # fmt: skip
    parts = {}
    for name, (method, references) in pairs.items():
        gained = over_best(every, method, references, metric, by)
        groups = gained.groupby([*by], sort=False)["gain"]
        parts[name] = {where: interval(g.to_numpy()) for where, g in groups}
    found = pd.DataFrame(parts).rename_axis([*by])
    found["what gains"] = [_what(*row) for row in found.to_numpy().tolist()]
    return found.map(str).reset_index()


def _what(over_probe: Interval, over_lda: Interval, lda: Interval) -> str:
    """What gains over a tuned probe, of the three intervals of `conditions`."""
    if over_probe.sign > 0 and over_lda.sign > 0:
        return "synthetic features"
    if lda.sign > 0:
        return "LDA alone"
    return "synthetic features or LDA" if over_probe.sign > 0 else "nothing"


def gap_closed(rows: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Share of the gap between balanced softmax and the full balanced set that each method closes (%).

    By set and metric, of the means over seeds, as single gaps may be near zero; no share where the gap's own
    95 % interval touches zero, or without a full set. "gained" is paired, with its interval.
    """
    parts, all_gains = [], gains(rows)
    for name in dict.fromkeys(rows["set"]):
        for metric in metrics:
            mine = all_gains[(all_gains["set"] == name) & (all_gains["metric"] == metric)]
            found = {m: interval(g.to_numpy()) for m, g in mine.groupby("method", sort=False)["gain"]}
            gap = found.pop(FULL_SET, None)
            known = gap is not None and gap.sign > 0
            part = {
                "method": list(found),
                "gained": [str(g) for g in found.values()],
                "closed": [round(100 * g.mean / gap.mean) if known and gap else None for g in found.values()],
            }
            parts.append(pd.DataFrame(part).assign(set=name, metric=metric))
    return pd.concat(parts)

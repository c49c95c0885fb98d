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
    TAU_CHOSEN,
)
from fgsynth.evaluate.metrics import interval, long_tail_accuracy
from fgsynth.guidance.criteria import Criterion, Hardness, entropy, loss
from fgsynth.guidance.feedback import Guidance
from fgsynth.latent.features.files import FeatureSet
from fgsynth.latent.features.formats import REST
from fgsynth.latent.probe.linear import Predictor, Probe, average_accuracy, path, select
from fgsynth.latent.probe.references import (
    NearestNeighbours,
    nearest_class_mean,
    nearest_neighbours,
    shrinkage_lda,
)
from fgsynth.latent.samplers.base import LatentSampler, fill_counts
from fgsynth.latent.samplers.diffusion import FeatureDiffusion, Feedback, feature_classifier
from fgsynth.latent.samplers.filters import Filtered, OnSphere
from fgsynth.latent.samplers.registry import SAMPLERS
from fgsynth.utils.parallel import threads_for
from fgsynth.utils.seeds import stable_seed

METRICS = ("overall", "many", "medium", "few")
TAUS = (0.0, 0.5, 1.0, 1.5)


def scaling(data: FeatureSet) -> tuple[Tensor, Tensor]:
    """The training mean (k,) and the root mean square of a feature's entries about it."""
    train = data.part("train")[0]
    return train.mean(0), (train - train.mean(0)).square().mean().sqrt()


def scaled(data: FeatureSet) -> FeatureSet:
    """Features counted from the training mean, at mean squared length k: weight decays then mean the same."""
    mean, size = scaling(data)
    return replace(data, features=(data.features - mean) / size)


@dataclass(frozen=True, eq=False)
class Trial:
    """One long-tailed feature set and a seed; every method is fitted on it and chosen on its validation set.

    weight_decays: of every probe, tried from the largest down. scale: the feedback scale w. updates: of the
    feature diffusion. final: a set without validation, on which each method is fitted again as chosen.
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
        """What is reported: the draw made for tables alone, where the benchmark has one."""
        return "final" if "final" in self.data.split else "test"

    @cached_property
    def counts(self) -> Tensor:
        """Real training features per class, (c,)."""
        return self.data.counts()

    @cached_property
    def guide(self) -> Probe:
        """What guides: the probe by cross entropy on the imbalanced real features (FG step 1)."""
        return self.probe(*self.data.part("train"), (0.0,))[0]

    @cached_property
    def diffusion(self) -> FeatureDiffusion:
        """The diffusion in feature space, fitted once for all ways to sample from it."""
        return FeatureDiffusion(updates=self.updates, seed=self.seed).fit(*self.data.part("train"))

    def guided(self, criterion: str) -> FeatureDiffusion:
        """The same diffusion, sampled under feedback of the guide."""
        features, label = self.data.part("train")
        made: dict[str, Callable[[], Criterion]] = {
            "entropy": lambda: entropy,
            "loss": lambda: loss,
            "hardness": lambda: Hardness.fit(features, label, len(self.counts)),
        }
        feedback = Feedback(made[criterion](), feature_classifier(self.guide.logits), Guidance(self.scale))
        return self.diffusion.guided_by(feedback)

    def probe(self, features: Tensor, label: Tensor, taus: Iterable[float]) -> tuple[Probe, float]:
        """The probe, and its tau, with the best average validation accuracy.

        Cross entropy, then logits - tau log prior of the real counts (Menon et al. 2021, eq. 9). Tau = 1 is
        balanced softmax to the letter: its shift by the prior is taken up by a bias that is not decayed.
        """
        plain = path(features, label, self.counts, self.weight_decays, balanced=0.0)
        tried = [(probe.adjusted(self.counts, tau), tau) for tau in taus for probe in plain]
        if len(tried) == 1:
            return tried[0]
        best = select(*self.data.part("val"), [probe for probe, _ in tried])
        return next((probe, tau) for probe, tau in tried if probe is best)

    def filled(self, sampler: LatentSampler, amount: float = 1.0) -> tuple[Tensor, Tensor]:
        """Real features, and `amount` times what every class lacks of the largest, synthetic."""
        features, label = self.data.part("train")
        missing = fill_counts(label, len(self.counts)).double().mul(amount).round().long()
        new, classes = sampler.sample_all(missing, stable_seed("latent study", self.seed))
        return torch.cat([features, new]), torch.cat([label, classes])

    def synthetic(self, method: str, amount: float = 1.0) -> dict[str, Any]:
        """A probe on real and synthetic features; its tau is chosen too: filling leaves less to correct."""
        return self._tuned(method, lambda t: t.filled(WAYS[method](t), amount), TAUS)

    def reference(self, method: str) -> dict[str, Any]:
        """A method without synthetic features, or the full balanced set."""
        if method == TAU_CHOSEN:
            return self._tuned(method, lambda t: t.data.part("train"), TAUS)
        start = perf_counter()
        fitted = REFERENCES[method](self)
        row = self.row(method, fitted, perf_counter() - start)
        return row if self.final is None else self._again(row).reference(method) | {"val": row["val"]}

    def _tuned(
        self, method: str, train: Callable[["Trial"], tuple[Tensor, Tensor]], taus: Sequence[float]
    ) -> dict[str, Any]:
        """A probe on the features that a method trains on, its tau chosen with its weight decay."""
        start = perf_counter()
        probe, tau = self.probe(*train(self), taus)
        row = self.row(method, probe, perf_counter() - start) | {"tau": tau}
        if self.final is None:
            return row
        return self._again(row)._tuned(method, train, [tau]) | {"val": row["val"]}

    def row(self, method: str, predictor: Predictor, seconds: float) -> dict[str, Any]:
        """Accuracies by stratum on `split`, the average on validation, seconds of fitting."""
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

    def _again(self, row: dict[str, Any]) -> "Trial":
        """The trial on the final set, with the settings of a row alone."""
        assert self.final is not None
        decays = [row["weight_decay"]] if "weight_decay" in row else self.weight_decays
        return replace(self, data=self.final, final=None, weight_decays=decays, neighbours=[row.get("k", 1)])


def _family(name: str, trial: Trial) -> LatentSampler:
    return SAMPLERS[name]().fit(*trial.data.part("train"))


def _guided(criterion: str, trial: Trial) -> LatentSampler:
    return trial.guided(criterion)


def _on_sphere(trial: Trial) -> LatentSampler:
    return OnSphere(SAMPLERS["class gaussian"]()).fit(*trial.data.part("train"))


def _untrained(trial: Trial) -> LatentSampler:
    """What the feature diffusion is before any training: what it gains by training is what it differs by."""
    return FeatureDiffusion(updates=0, seed=trial.seed).fit(*trial.data.part("train"))


def _near_prototype(trial: Trial) -> LatentSampler:
    return Filtered(SAMPLERS["class gaussian"](), keep=0.5).fit(*trial.data.part("train"))


def _nearest_neighbours(trial: Trial) -> NearestNeighbours:
    # With one k, validation has nothing to say.
    split = "val" if len(trial.neighbours) > 1 else "train"
    real, held = trial.data.part("train"), trial.data.part(split)
    return nearest_neighbours(*real, len(trial.counts), *held, trial.neighbours)


WAYS: dict[str, Callable[[Trial], LatentSampler]] = {
    **{name: partial(_family, name) for name in SAMPLERS},
    "class gaussian, nearest half": _near_prototype,
    "class gaussian, unit sphere": _on_sphere,
    "shrunk means, tied covariance": _untrained,
    "feature diffusion": lambda trial: trial.diffusion,
    **{f"feature diffusion, FG {c}": partial(_guided, c) for c in ("entropy", "loss", "hardness")},
}
"""How synthetic features are made: a fitted sampler of a trial."""

REFERENCES: dict[str, Callable[[Trial], Predictor]] = {
    ERM: lambda t: t.guide,
    BALANCED_SOFTMAX: lambda t: t.probe(*t.data.part("train"), (1.0,))[0],
    NEAREST_MEAN: lambda t: nearest_class_mean(*t.data.part("train"), len(t.counts)),
    SHRINKAGE_LDA: lambda t: shrinkage_lda(*t.data.part("train"), len(t.counts)),
    NEAREST_NEIGHBOURS: _nearest_neighbours,
    FULL_SET: lambda t: t.probe(*t.data.part("train", REST), (0.0,))[0],
}
"""Without synthetic features; the last is the bound, which no long-tailed method sees."""
REFERENCE_NAMES = (ERM, BALANCED_SOFTMAX, TAU_CHOSEN, *list(REFERENCES)[2:])


def compare(trial: Trial, ways: Iterable[str]) -> pd.DataFrame:
    """All references and the named ways on one trial, and the way that its validation set prefers."""
    with threads_for(trial.data.features.numel() * len(trial.counts)):
        return _compared(trial, ways)


def _compared(trial: Trial, ways: Iterable[str]) -> pd.DataFrame:
    names = [name for name in REFERENCE_NAMES if name != FULL_SET or REST in trial.data.split]
    rows = [trial.reference(name) for name in names]
    made = [trial.synthetic(name) for name in ways]
    best = max(made, key=lambda row: float(row["val"]))
    return pd.DataFrame([*rows, *made, best | {"method": CHOSEN_SAMPLER}])


def gains(rows: pd.DataFrame, reference: str = BALANCED_SOFTMAX) -> pd.DataFrame:
    """Every row minus the reference of its seed: method, seed, metric, gain (points)."""
    long = rows.melt(["method", "seed"], list(METRICS), "metric", "value").dropna(subset="value")
    against = long[long["method"] == reference].set_index(["seed", "metric"])["value"]
    long["gain"] = (
        long["value"] - against.reindex(pd.MultiIndex.from_frame(long[["seed", "metric"]])).to_numpy()
    )
    return long[long["method"] != reference].drop(columns="value")


def gap_closed(
    rows: pd.DataFrame, metric: str = "overall", reference: str = BALANCED_SOFTMAX
) -> pd.DataFrame:
    """Share of the gap between a reference and the full balanced set that each method closes, in percent.

    Of the means over seeds, as single gaps may be near zero; no share where the gap's own 95 % interval
    touches zero, or without a full set. "gained" is paired, with its interval.
    """
    all_gains = gains(rows, reference)
    mine = all_gains[all_gains["metric"] == metric].groupby("method", sort=False)["gain"]
    found = {str(method): interval(g.to_numpy()) for method, g in mine}
    gap = found.pop(FULL_SET, None)
    known = gap is not None and gap.sign > 0
    return pd.DataFrame(
        [
            {
                "method": method,
                "gained": str(g),
                "closed": round(100 * g.mean / gap.mean) if known and gap else None,
            }
            for method, g in found.items()
        ]
    )

"""Speed of a probe on filled features: CIFAR-100-LT's size against other tools, ImageNet-LT's in blocks."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import pandas as pd
import torch
from imblearn.over_sampling import SMOTE
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from fgsynth.cost.table5 import hardware
from fgsynth.evaluate.metrics import long_tail_accuracy, paired_bootstrap
from fgsynth.latent.features.cifar import exponential_counts
from fgsynth.latent.probe.linear import Probe, fit_probe
from fgsynth.latent.probe.objective import Objective, log_prior
from fgsynth.latent.probe.references import shrinkage_lda
from fgsynth.latent.samplers.base import fill_counts
from fgsynth.latent.samplers.gaussians import Gaussian
from fgsynth.latent.stochastic import fit_probe_stream, mixture
from fgsynth.utils.paths import write_text
from fgsynth.utils.seeds import generator

T = TypeVar("T")
WEIGHT_DECAY = 1e-3
TOLERANCE = 1e-3
"""A third of a probe's default: its objective then ends no higher than LogisticRegression's at its own."""
REFERENCE = "class Gaussian, LogisticRegression (scikit-learn)"
FAMILY = 5
"""Classes of a superclass, which are told apart less easily."""


@dataclass(frozen=True)
class World:
    """A hierarchical Gaussian: class means about superclass means, (c, k); spread per dimension, (k,)."""

    means: Tensor
    spread: Tensor

    @classmethod
    def drawn(cls, n_classes: int, k: int, seed: int, separation: float = 0.25) -> "World":
        """The spread of dimension i falls as i^(-1/2), as the spectra of features do; its mean square is 1.

        Superclass means depart from zero by `separation` times that, classes from them by 0.7 of as much.
        """
        random = generator("latent speed", "world", seed)
        spread = torch.arange(1, k + 1).rsqrt()
        spread = spread / spread.square().mean().sqrt()
        families = torch.randn(-(-n_classes // FAMILY), k, generator=random).repeat_interleave(FAMILY, 0)
        own = torch.randn(n_classes, k, generator=random)
        return cls(separation * (families[:n_classes] + 0.7 * own) * spread, spread)

    def features(self, counts: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """counts[y] features of every class, (n, k), and labels, (n,), in random order."""
        random = generator("latent speed", "features", seed)
        label = torch.arange(len(counts)).repeat_interleave(counts)
        label = label[torch.randperm(len(label), generator=random)]
        features = torch.randn(len(label), len(self.spread), generator=random)
        return features.mul_(self.spread).add_(self.means[label]), label


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


Data = tuple[Tensor, Tensor]
"""Features (n, k) and labels (n,)."""


def _filled(features: Tensor, label: Tensor, to: int) -> Data:
    counts = fill_counts(label, int(label.max()) + 1, to)
    new, new_label = Gaussian().fit(features, label).sample_all(counts, 0)
    return torch.cat([features, new]), torch.cat([label, new_label])


def _smote(features: Tensor, label: Tensor) -> Data:
    nearest = min(5, int(label.bincount().min()) - 1)
    e, y = SMOTE(k_neighbors=nearest, random_state=0).fit_resample(features.numpy(), label.numpy())
    return torch.from_numpy(e), torch.from_numpy(y)


def _probe(features: Tensor, label: Tensor) -> Probe:
    return fit_probe(features, label, label.bincount(), weight_decay=WEIGHT_DECAY, tolerance=TOLERANCE)


def _logistic_regression(features: Tensor, label: Tensor) -> Probe:
    """scikit-learn's, at its own tolerance: the objective of `_probe` where classes are equally large."""
    model = LogisticRegression(C=1 / (2 * len(label) * WEIGHT_DECAY), max_iter=1000)
    model.fit(features.numpy(), label.numpy())
    weight, bias = torch.from_numpy(model.coef_.T.copy()), torch.from_numpy(model.intercept_)
    n = int(model.n_iter_.max())
    return Probe(weight.float(), bias.float(), passes=n, converged=n < model.max_iter)


def small(k: int = 768, n_max: int = 500, n_classes: int = 100, seed: int = 0) -> pd.DataFrame:
    """CIFAR-100-LT's size (imbalance 100): classes filled to n_max, a classifier on all features.

    Columns: method, sampling_seconds, fit_seconds, objective (the probe's, on the features fitted on), passes
    (over all features; of scikit-learn its iterations), accuracy and few (balanced test set, percent), and
    the accuracy beyond LogisticRegression's: gain, low, high (points, paired bootstrap over test features).
    """
    world = World.drawn(n_classes, k, seed)
    counts = torch.from_numpy(exponential_counts(n_classes, n_max, 100))
    real = world.features(counts, seed)
    test = world.features(torch.full_like(counts, 100), seed + 1)
    gaussian, smote = _timed(lambda: _filled(*real, n_max)), _timed(lambda: _smote(*real))
    nothing = (real, 0.0)
    methods: list[tuple[str, tuple[Data, float], Callable[[Tensor, Tensor], Probe]]] = [
        ("class Gaussian, probe", gaussian, _probe),
        (REFERENCE, gaussian, _logistic_regression),
        ("SMOTE (imbalanced-learn), probe", smote, _probe),
        ("real only, probe with balanced softmax", nothing, _probe),
        ("real only, shrinkage LDA", nothing, lambda e, y: shrinkage_lda(e, y, n_classes)),
    ]
    rows, hits = [], {}
    for name, (data, sampling), fit in methods:
        probe, seconds = _timed(partial(fit, *data))
        objective = Objective(*data, log_prior(data[1].bincount()).float(), 1.0, WEIGHT_DECAY)
        predicted = probe.predict(test[0])
        right = long_tail_accuracy(predicted, test[1], counts)
        hits[name] = (predicted == test[1]).numpy()[None]
        rows.append(
            {
                "method": name, "sampling_seconds": sampling, "fit_seconds": seconds,
                "objective": objective(probe.weight, probe.bias)[0], "passes": probe.passes,
                "accuracy": right["overall"], "few": right["few"],
            }
        )  # fmt: skip
    gains = [paired_bootstrap(hit, hits[REFERENCE], test[1].numpy()) for hit in hits.values()]
    columns = {"gain": "mean", "low": "low", "high": "high"}
    beyond = {column: [getattr(g, name) for g in gains] for column, name in columns.items()}
    return pd.DataFrame(rows).assign(**beyond)


def large(
    k: int = 768, n_max: int = 1280, n_classes: int = 1000, rows: int = 2**18, blocks: int = 1, seed: int = 0
) -> dict[str, float]:
    """ImageNet-LT's size (115,562 real features, filled to 1.28 million) in blocks; `blocks` are done.

    Seconds of fitting the sampler, per block of sampling it and of SGD, and of an epoch, extrapolated; GiB of
    memory, the most that this process has had.
    """
    i = torch.arange(n_classes) / (n_classes - 1)
    counts = (n_max * 256 ** -(i**0.62)).round().long()
    features, label = World.drawn(n_classes, k, seed).features(counts, seed)
    sampler, fitting = _timed(lambda: Gaussian().fit(features, label))
    batches = mixture(features, label, sampler, fill_counts(label, n_classes), rows=rows, seed=seed)
    parts = -(-n_classes * n_max // rows)
    sizes, sampling = _timed(lambda: [len(y) for _, y in islice(batches(0), blocks)])
    prior = torch.full((n_classes,), n_max)
    _, both = _timed(
        lambda: fit_probe_stream(
            lambda epoch: islice(batches(epoch), blocks), sum(sizes), prior, 1, weight_decay=WEIGHT_DECAY
        )
    )
    return {
        "real": len(label), "blocks": parts, "rows": sum(sizes) / blocks, "fit_sampler_seconds": fitting,
        "sample_block_seconds": sampling / blocks, "sgd_block_seconds": (both - sampling) / blocks,
        "epoch_seconds": parts * both / blocks,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }  # fmt: skip


def run(folder: Path, blocks: int = 1) -> str:
    """Measures both sizes, writes latent_speed.csv and latent_speed.txt into the folder, returns the text."""
    table, size = small(), large(blocks=blocks)
    write_text(folder / "latent_speed.csv", table.to_csv(index=False, float_format="%.5g"))
    text = report(table, size)
    write_text(folder / "latent_speed.txt", text)
    return text


def report(table: pd.DataFrame, size: dict[str, float]) -> str:
    """The text beside the table: what was measured, on what, and what is extrapolated."""
    ours, theirs = table["fit_seconds"].iloc[:2]
    whole = ours + table["sampling_seconds"].iloc[0]
    gain, low, high = table[["gain", "low", "high"]].iloc[0]
    return (
        f"{table.to_string(index=False, float_format='{:.3f}'.format)}\n\n"
        f"Probe {theirs / ours:.1f} times as fast as LogisticRegression on the same features; "
        f"sampling and probe together {theirs / whole:.1f} times as fast as LogisticRegression alone; "
        f"accuracy {gain:+.2f} [{low:.2f}, {high:.2f}] points beyond it.\n"
        f"ImageNet-LT's size, in blocks of {size['rows']:.0f} features: "
        f"{size['fit_sampler_seconds']:.1f} s to fit the sampler; "
        f"per block {size['sample_block_seconds']:.1f} s of sampling "
        f"and {size['sgd_block_seconds']:.1f} s of SGD; "
        f"{size['blocks']:.0f} blocks, so about {size['epoch_seconds']:.0f} s per epoch (extrapolated); "
        f"at most {size['peak_gib']:.2f} GiB of memory.\n"
        f"{hardware(torch.device('cpu'))}"
    )

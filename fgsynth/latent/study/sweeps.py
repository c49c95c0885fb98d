"""What is varied beside the comparison: synthetic features, shots, and the backbone fine-tuned as a whole."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from fgsynth.config.names import BALANCED_SOFTMAX, FINE_TUNED, SHRINKAGE_LDA, TAU_CHOSEN
from fgsynth.data.benchmark import MANY_ABOVE
from fgsynth.evaluate.metrics import long_tail_accuracy
from fgsynth.latent.features.extractors import Extractor
from fgsynth.latent.features.files import FeatureSet
from fgsynth.latent.features.finetune import FineTuned, best_by_validation, fine_tune
from fgsynth.latent.features.formats import REST
from fgsynth.latent.features.sets import ImageSet
from fgsynth.latent.features.sources import take
from fgsynth.latent.study.comparison import Trial
from fgsynth.utils.parallel import threads_for
from fgsynth.utils.seeds import stable_seed


def amounts(trial: Trial, ways: Iterable[str], amounts: Sequence[float]) -> pd.DataFrame:
    """Accuracy against the number of synthetic features, times what each class lacks; 0 is none."""
    with threads_for(trial.data.features.numel() * len(trial.counts)):
        rows = [trial.reference(TAU_CHOSEN) | {"method": way, "amount": 0.0} for way in ways]
        rows += [trial.synthetic(way, a) | {"amount": a} for way in ways for a in amounts]
    return pd.DataFrame(rows)


def shots(trial: Trial, ways: Iterable[str], shots: Sequence[int]) -> pd.DataFrame:
    """Accuracy against the number of real features of every class that has not many."""
    rows = []
    for n in shots:
        fewer = replace(trial, data=few_shot(trial.data, n, trial.seed), final=None)
        with threads_for(trial.data.features.numel() * len(trial.counts)):
            made = [fewer.reference(m) for m in (BALANCED_SOFTMAX, SHRINKAGE_LDA)]
            rows += [row | {"shots": n} for row in [*made, *map(fewer.synthetic, ways)]]
    return pd.DataFrame(rows)


def tune(
    trial: Trial, source: ImageSet, eyes: Extractor, rates: Sequence[float], epochs: int
) -> pd.DataFrame:
    """Fine-tuning of the extractor's network, from a balanced-softmax probe on; rate chosen on validation."""
    part = {split: trial.data.where(split) for split in ("train", "val", trial.split)}
    pixels = {
        k: eyes.prepare([Image.fromarray(p.numpy()) for p in take(source.source, rows)])
        for k, rows in part.items()
    }
    label = {k: trial.data.label[rows] for k, rows in part.items()}

    started = perf_counter()
    probe = _probe_of(trial, eyes.network, pixels["train"], label["train"])
    before = perf_counter() - started

    def train(rate: float) -> FineTuned:
        return fine_tune(
            eyes.network,
            pixels["train"],
            label["train"],
            trial.counts,
            rate=rate,
            epochs=epochs,
            seed=trial.seed,
            probe=probe,
        )

    best = best_by_validation(rates, train, pixels["val"], label["val"])
    accuracies = long_tail_accuracy(best.predict(pixels[trial.split]), label[trial.split], trial.counts)
    row = {"method": FINE_TUNED, "seed": trial.seed, **accuracies, "seconds": before + best.seconds}
    return pd.DataFrame([row | {"trainable": float(best.trainable), "rate": best.rate}])


@torch.no_grad()
def _probe_of(
    trial: Trial, network: Callable[[Tensor], Tensor], x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """A balanced-softmax probe on a network's own features: weight (k, c), bias (c,)."""
    raw = torch.cat([network(part) for part in x.split(512)])
    mean, size = raw.mean(0), (raw - raw.mean(0)).square().mean().sqrt()
    probe = trial.probe((raw - mean) / size, y, (1.0,))[0]
    return probe.weight / size, probe.bias - mean @ probe.weight / size


def few_shot(data: FeatureSet, shots: int, seed: int) -> FeatureSet:
    """The set with `shots` training features of every class that has not many; the rest is dropped."""
    train = data.where("train").numpy()
    label = data.label.numpy()
    rng = np.random.default_rng(stable_seed("few shot", seed))
    keep = np.isin(data.split, ("val", "test", "final"))
    for y, n in enumerate(data.counts().tolist()):
        mine = train[label[train] == y]
        rest = np.flatnonzero((data.split == REST) & (label == y))
        pool = mine if n > MANY_ABOVE else rng.permutation(np.concatenate([mine, rest]))[:shots]
        keep[pool] = True
    split = np.where(data.split == REST, "train", data.split)[keep]
    rows = torch.from_numpy(np.flatnonzero(keep))
    return replace(data, features=data.features[rows], label=data.label[rows], split=split)

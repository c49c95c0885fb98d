"""Beside the comparison: the number of synthetic features and of shots, and the backbone fine-tuned."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fgsynth.config.names import FINE_TUNED, TAU_CHOSEN
from fgsynth.data.benchmark import MANY_ABOVE
from fgsynth.data.images import as_rgb_all
from fgsynth.data.sources import take
from fgsynth.evaluate.metrics import long_tail_accuracy
from fgsynth.latent.features.extractors import Extractor
from fgsynth.latent.features.feature_set import REST, FeatureSet
from fgsynth.latent.features.finetune import FineTuned, best_by_validation, fine_tune
from fgsynth.latent.features.sets import ImageSet
from fgsynth.latent.study.comparison import LDAS, PROBES, Draw
from fgsynth.utils.parallel import threads_for
from fgsynth.utils.seeds import stable_seed


def amounts(draw: Draw, methods: Iterable[str], amounts: Sequence[float]) -> pd.DataFrame:
    """Accuracy against the number of synthetic features, times what each class lacks; 0 is none."""
    with threads_for(draw.data.features.numel() * len(draw.counts)):
        none = draw.reference(TAU_CHOSEN) | {"amount": 0.0}
        rows = [none | {"method": method} for method in methods]
        rows += [draw.synthetic(method, a) | {"amount": a} for method in methods for a in amounts]
    return pd.DataFrame(rows)


def shots(draw: Draw, methods: Iterable[str], shots: Sequence[int]) -> pd.DataFrame:
    """Accuracy against the real features of every class that has not many; references are tuned as well."""
    rows = []
    for n in shots:
        fewer = replace(draw, data=few_shot(draw.data, n, draw.seed), final=None)
        with threads_for(draw.data.features.numel() * len(draw.counts)):
            made = [fewer.reference(m) for m in (*PROBES, *LDAS)]
            rows += [row | {"shots": n} for row in [*made, *map(fewer.synthetic, methods)]]
    return pd.DataFrame(rows)


def tune(
    draw: Draw, source: ImageSet, extractor: Extractor, rates: Sequence[float], epochs: int
) -> pd.DataFrame:
    """Fine-tune the extractor's network, starting at a balanced-softmax probe; rate chosen on validation."""
    part = {split: draw.data.where(split) for split in ("train", "val", draw.split)}
    pixels = {
        k: extractor.prepare(as_rgb_all(list(take(source.source, rows)))).to(extractor.device)
        for k, rows in part.items()
    }
    label = {k: draw.data.label[rows] for k, rows in part.items()}

    started = perf_counter()
    probe = _probe_of(draw, extractor.network, pixels["train"], label["train"])
    before = perf_counter() - started

    def train(rate: float) -> FineTuned:
        return fine_tune(
            extractor.network, pixels["train"], label["train"], draw.counts, probe=probe, rate=rate,
            epochs=epochs, seed=draw.seed,
        )  # fmt: skip

    best = best_by_validation(rates, train, pixels["val"], label["val"])
    accuracies = long_tail_accuracy(best.predict(pixels[draw.split]), label[draw.split], draw.counts)
    row = {"method": FINE_TUNED, "seed": draw.seed, **accuracies, "seconds": before + best.seconds}
    return pd.DataFrame([row | {"trainable": float(best.trainable), "rate": best.rate}])


@torch.no_grad()
def _probe_of(draw: Draw, network: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a balanced-softmax probe on a network's own features: weight (k, c), bias (c,)."""
    raw = torch.cat([network(part).cpu() for part in x.split(512)])
    mean, size = raw.mean(0), (raw - raw.mean(0)).square().mean().sqrt()
    probe = draw.probe((raw - mean) / size, y, (1.0,))[0]
    return probe.weight / size, probe.bias - mean @ probe.weight / size


def few_shot(data: FeatureSet, shots: int, seed: int) -> FeatureSet:
    """Cut or extend the set to `shots` training features of every class that has not many."""
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

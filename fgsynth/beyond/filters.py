"""Prototype-interval filter of synthetic images: neither too near to their class's prototype nor too far."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from fgsynth.data.benchmark import strata
from fgsynth.data.sources import Source
from fgsynth.evaluate.scores import STRATA
from fgsynth.experiments.experiment import Experiment
from fgsynth.experiments.study import clip_embeddings, readings
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.utils.errors import UserError


def by_prototype(exp: Experiment, made: SyntheticSet, tail: float) -> NDArray[np.bool_]:
    """Prototype-interval filter: keep images but the nearest and the farthest of every class, (n,).

    The nearest teach what the real images teach, the farthest may show another class. Distances are
    1 - cosine in the generator's CLIP space, to the class's `prototypes`; tail: the share of a class's images
    that is dropped at either end, rounded down. Its form is ours.
    """
    label = made.index["label"].to_numpy(np.int64)
    real = prototypes(unit_embeddings(exp, exp.real), exp.real.label, exp.n_classes)
    near = (unit_embeddings(exp, made.images) * real[torch.tensor(label)]).sum(1).numpy()
    kept = np.zeros(len(label), dtype=bool)
    for c in np.unique(label):
        mine = np.flatnonzero(label == c)
        n = int(tail * len(mine))
        kept[mine[near[mine].argsort(kind="stable")][n : len(mine) - n]] = True
    return kept


def dropped(exp: Experiment, made: SyntheticSet, mask: NDArray[np.bool_]) -> pd.DataFrame:
    """What a filter drops: one row for all images and for every stratum that has some.

    Columns stratum, n, dropped (%). In the mini world, by its judge, also wrong (% that show another class
    than their label), precision (% wrong among those dropped) and recall (% dropped among those wrong), NaN
    where nothing is dropped or wrong.
    """
    m, label = exp.bench.manifest, made.index["label"].to_numpy(np.int64)
    table = pd.DataFrame({"stratum": strata(m.counts().numpy())[label], "out": ~mask})
    if exp.bench.factors is not None:
        kind = readings(exp, made)["kind"].to_numpy()
        table["wrong"] = kind != np.array(m.classes, dtype=object)[label]
    parts = {"all": table, **{name: table[table["stratum"] == name] for name in STRATA}}
    return pd.DataFrame([{"stratum": name, **_counted(part)} for name, part in parts.items() if len(part)])


def _counted(part: pd.DataFrame) -> dict[str, float]:
    """The columns of `dropped` but the first, of some images."""
    found = {"n": len(part), "dropped": 100 * part["out"].mean()}
    if "wrong" in part:
        precision, recall = part["wrong"][part["out"]].mean(), part["out"][part["wrong"]].mean()
        found |= {"wrong": 100 * part["wrong"].mean(), "precision": 100 * precision, "recall": 100 * recall}
    return found


def unit_embeddings(exp: Experiment, images: Source) -> Tensor:
    """CLIP embeddings of images by the experiment's generator, of unit length, (n, k) on the CPU."""
    return normalize(clip_embeddings(exp.generator, images).double(), dim=1)


def prototypes(embedding: Tensor, label: Tensor, n_classes: int) -> Tensor:
    """Mean embedding of each class at unit length, (c, k). Raises UserError for a class without images."""
    if (absent := (label.bincount(minlength=n_classes) == 0).nonzero()).numel():
        raise UserError(f"Class {int(absent[0])} has no real image: it has no prototype, leave it out.")
    sums = embedding.new_zeros(n_classes, embedding.shape[1]).index_add_(0, label, embedding)
    return normalize(sums, dim=1)

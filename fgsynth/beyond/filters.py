"""Filters of synthetic images: by CLIP prototypes of the classes, or by a classifier's confidence."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from fgsynth.beyond.scale_rule import class_probability
from fgsynth.data.benchmark import strata
from fgsynth.data.sources import Source
from fgsynth.evaluate.scores import STRATA
from fgsynth.experiments.experiment import Experiment
from fgsynth.experiments.study import clip_embeddings, readings
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.models.networks import Classifier
from fgsynth.utils.errors import UserError


def by_prototype(exp: Experiment, made: SyntheticSet) -> NDArray[np.bool_]:
    """Nearest-prototype filter: keep images no nearer to another class's prototype, (n,).

    Distances are 1 - cosine in the generator's CLIP space (`prototypes`). Each class keeps the image that
    is least like another class. A usual filter of generated images; its form is ours.
    """
    label = torch.tensor(made.index["label"].to_numpy(np.int64))
    real = prototypes(unit_embeddings(exp, exp.real), exp.real.label, exp.n_classes)
    distance = 1 - unit_embeddings(exp, made.images) @ real.T
    own = distance.gather(1, label[:, None])[:, 0]
    other = distance.scatter(1, label[:, None], torch.inf).amin(1)
    return _none_emptied((own <= other).numpy(), (own - other).numpy(), label.numpy())


def by_confidence(
    exp: Experiment, made: SyntheticSet, network: Classifier, threshold: float
) -> NDArray[np.bool_]:
    """Confidence filter: keep images whose class has at least this softmax probability, (n,).

    network: one that did not guide (`scale_rule.held_out`), as feedback lowers the guide's own confidence on
    purpose. Each class keeps its most probable image. A usual filter of generated images; it drops the hard
    ones, which feedback makes, with the wrong ones.
    """
    own = class_probability(exp, made, network)
    return _none_emptied(own >= threshold, -own, made.index["label"].to_numpy(np.int64))


def dropped(exp: Experiment, made: SyntheticSet, mask: NDArray[np.bool_]) -> pd.DataFrame:
    """What a filter drops: one row for all images and for every stratum that has some.

    Columns stratum, n, dropped (%), one_left (classes of which a single image is left, of more: as many at
    most were kept from being emptied). In the mini world, by its judge, also wrong (% that show another
    class than their label), precision (% wrong among those dropped) and recall (% dropped among those
    wrong), NaN where nothing is dropped or wrong.
    """
    m, label = exp.bench.manifest, made.index["label"].to_numpy(np.int64)
    table = pd.DataFrame({"label": label, "stratum": strata(m.counts().numpy())[label], "out": ~mask})
    if exp.bench.factors is not None:
        kind = readings(exp, made)["kind"].to_numpy()
        table["wrong"] = kind != np.array(m.classes, dtype=object)[label]
    parts = {"all": table, **{name: table[table["stratum"] == name] for name in STRATA}}
    return pd.DataFrame([{"stratum": name, **_counted(part)} for name, part in parts.items() if len(part)])


def _counted(part: pd.DataFrame) -> dict[str, float]:
    """The columns of `dropped` but the first, of some images."""
    left = part.groupby("label")["out"].agg(lambda out: len(out) > 1 and (~out).sum() == 1)
    found = {"n": len(part), "dropped": 100 * part["out"].mean(), "one_left": int(left.sum())}
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


def _none_emptied(
    mask: NDArray[np.bool_], score: NDArray[np.float64], label: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """The mask, with the image of the lowest score of every class that it would empty."""
    mask = mask.copy()
    for c in np.setdiff1d(label, label[mask]):
        mine = np.flatnonzero(label == c)
        mask[mine[score[mine].argmin()]] = True
    return mask

"""DFR: the last layer refitted on held-out images of equally large groups (Kirichenko et al. 2023)."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from fgsynth.config.checked import checked
from fgsynth.config.schema import Count, NotNegativeCount
from fgsynth.data.sources import Source, count
from fgsynth.models.networks import Classifier, last_layer, with_last_layer
from fgsynth.train.sampling import mixed_by, subsampled
from fgsynth.train.second_stage.rescale import linear_layer
from fgsynth.train.train import outputs
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator, stable_seed

STRENGTHS = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)
"""C of scikit-learn's logistic regression, the inverse of the L1 penalty's strength, as in the paper."""
FITS = 10
"""Refits on random subsets whose weights are averaged, as in the paper."""
ITERATIONS, TOLERANCE = 100, 1e-3
"""Of scikit-learn's SAGA, which need not end at the optimum: our choice."""
Layer = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Weight (c, k) and bias (c,)."""


@checked
def dfr(
    network: Classifier,
    held_out: Source,
    group: Tensor,
    seed: int,
    *,
    side: Count | None = None,
    workers: NotNegativeCount = 0,
) -> Classifier:
    """DFR: logistic regression with an L1 penalty on embeddings of a group-balanced held-out set.

    held_out: images that neither trained the network nor are reported on; group (n,): of each, 0 and up.
    Embeddings are of the plain views, standardised. A random half of every group's images fits, the other
    half chooses the penalty by average accuracy, the selection rule of FG table 3 (the paper takes the worst
    group); then the weights of FITS refits on random subsets of all held-out images, with as many of
    every group as the smallest has, are averaged. Returns a new frozen network.
    Raises UserError for groups of another number, and for a class without a held-out image.
    """
    label = held_out.label.numpy()
    counts = count(held_out, last_layer(network).out_features, "held-out")
    if len(absent := (counts == 0).nonzero()):
        raise UserError(f"Class {int(absent[0])} has no held-out image: hold some out, or leave out DFR.")
    if group.shape != held_out.label.shape or group.dtype != torch.long or (group < 0).any():
        raise UserError(
            f"The groups are {group.dtype} {tuple(group.shape)} for {len(label)} held-out images: one int64 "
            "each is needed, 0 and up."
        )
    embedding = outputs(network, held_out, side=side, workers=workers)[1].double().numpy()
    mean, std = embedding.mean(0), embedding.std(0)
    std[std == 0] = 1.0
    x = (embedding - mean) / std
    strength = _chosen(x, label, group, seed)
    rows = torch.arange(len(label))
    each = [_fitted(x, label, group, rows, strength, stable_seed("DFR fit", seed, i)) for i in range(FITS)]
    weight, bias = np.mean([w for w, _ in each], 0) / std, np.mean([b for _, b in each], 0)
    new = linear_layer(*(torch.from_numpy(each).float() for each in (weight, bias - weight @ mean)))
    return with_last_layer(network, new)


def _chosen(x: NDArray[np.float64], label: NDArray[np.int64], group: Tensor, seed: int) -> float:
    """The strength of the best average accuracy on one half of every group, fitted on the other."""
    first, second = halves(group, generator("DFR halves", seed))
    rest, own = second.numpy(), stable_seed("DFR choice", seed)
    found = []
    for strength in STRENGTHS:
        weight, bias = _fitted(x, label, group, first, strength, own)
        found.append(float(((x[rest] @ weight.T + bias).argmax(1) == label[rest]).mean()))
    return STRENGTHS[int(np.argmax(found))]


def halves(group: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows of two random halves of every group; the first has the odd one."""
    rows, place = mixed_by(group, draw)
    return rows[place % 2 == 0].sort().values, rows[place % 2 == 1].sort().values


def _fitted(
    x: NDArray[np.float64], label: NDArray[np.int64], group: Tensor, rows: Tensor, strength: float, seed: int
) -> Layer:
    """A last layer on a random subset of rows, with as many of every group as the smallest has."""
    some = rows[subsampled(group[rows], generator("DFR subset", seed))].numpy()
    model = LogisticRegression(
        C=strength, l1_ratio=1.0, solver="saga", max_iter=ITERATIONS, tol=TOLERANCE, random_state=seed % 2**32
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x[some], label[some])
    if len(model.coef_) > 1:
        return model.coef_, model.intercept_
    # Of two classes scikit-learn has one row, the difference of theirs.
    weight, bias = model.coef_[0] / 2, float(model.intercept_[0]) / 2
    return np.stack([-weight, weight]), np.array([-bias, bias])

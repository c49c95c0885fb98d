"""The linear probe: (balanced) softmax regression on features, its path over weight decays, its selection."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fgsynth.evaluate.metrics import per_class_accuracy
from fgsynth.latent.checks import check_features
from fgsynth.latent.probe.discriminant import count_classes, no_empty_class, statistics
from fgsynth.latent.probe.objective import Head, Objective, columns_of, log_prior, rows_of
from fgsynth.latent.probe.solver import minimise, start_of
from fgsynth.train.losses import prior_counts
from fgsynth.utils.errors import UserError
from fgsynth.utils.parallel import SMALL

SCALE = 16.0
"""Of the cosine head (our choice): logits from -16 to 16."""
ROWS = 8192
"""About as many rows give the covariance behind the start and the coordinates; the objective is of all."""
ITERATIONS, TOLERANCE = 1000, 0.05
"""Of the solver: most iterations, and the largest share of the objective that may be above its minimum."""


@dataclass(frozen=True)
class Probe:
    """A linear probe: logits = rows @ weight + bias, rows as they are or, for a cosine head, at unit length.

    weight (k, c), for the cosine head with columns at length `scale`, and bias (c,). Of its fit: weight
    decay, objective reached in nats, iterations, and whether it converged (None where there was no fit).
    """

    weight: Tensor
    bias: Tensor
    head: Head = "linear"
    weight_decay: float = 0.0
    objective: float = float("nan")
    iterations: int = 0
    converged: bool | None = None

    def logits(self, features: Tensor) -> Tensor:
        """Logits (n, c) of features (n, k). Raises UserError for features of another width."""
        if features.ndim != 2 or features.shape[1] != len(self.weight):
            raise UserError(
                f"Features of shape {tuple(features.shape)} for a probe of {len(self.weight)} dimensions: "
                "give (n, k) from the extractor that it was fitted on."
            )
        return torch.addmm(self.bias, rows_of(features, self.head), self.weight)

    def predict(self, features: Tensor) -> Tensor:
        """Predicted class, (n,)."""
        return self.logits(features).argmax(1)

    def adjusted(self, counts: Tensor, tau: float) -> "Probe":
        """Post-hoc logit adjustment (Menon et al. 2021, eq. 9): logits - tau log prior, from counts (c,)."""
        prior = log_prior(prior_counts("real", counts)).to(self.bias)
        return replace(self, bias=self.bias - tau * prior)


def fit_probe(
    features: Tensor, label: Tensor, counts: Tensor, *, weight_decay: float, **options: Any
) -> Probe:
    """Fit a linear probe: a `path` of one weight decay."""
    return path(features, label, counts, [weight_decay], **options)[0]


def path(
    features: Tensor,
    label: Tensor,
    counts: Tensor,
    weight_decays: Sequence[float],
    *,
    balanced: float = 1.0,
    head: Head = "linear",
    scale: float = SCALE,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
    share: Tensor | None = None,
) -> list[Probe]:
    """Fit a regularisation path: a probe per weight decay, from the largest down, each from the one before.

    By full-batch L-BFGS (`solver.minimise`) on (balanced) softmax cross entropy + weight_decay |W|^2; the
    bias is free. scikit-learn's LogisticRegression has the same objective at C = 1 / (2 n weight_decay) and
    balanced = 0. The cosine head (columns and rows at unit length, times `scale`) has no bias, and its weight
    decay is 0 as its logits do not depend on |W|.

    features (n, k) float32 and label (n,), every class with a row; counts (c,): n_c of balanced softmax (Ren
    et al. 2020), and balanced, 0 to 1, its weight against plain cross entropy; share (n,): weights of the
    rows, of which only ratios matter. Raises UserError for features that `check_features` refuses, or a class
    without.
    """
    check_features(features, label)
    no_empty_class(count_classes(label, len(counts)))
    prior = log_prior(prior_counts("real", counts))
    rows = rows_of(features, head)
    found = statistics(rows, label, len(counts), ROWS)
    # Small problems in double precision: it costs little, and the optimum is known to more digits.
    rows = rows.double() if features.numel() * len(counts) < SMALL else rows
    scale = scale if head == "cosine" else 1.0
    share = None if share is None else (share / share.mean()).to(rows)[:, None]
    objective = Objective(rows, label, prior.to(rows), balanced, 0.0, head, scale, share)
    weight, bias = start_of(objective, found)
    probes = []
    for decay in sorted(weight_decays, reverse=True):
        if head == "cosine":
            weight = F.normalize(weight, dim=0)
        objective = replace(objective, weight_decay=decay)
        end = minimise(objective, found, (weight, bias), iterations, tolerance)
        weight, bias = end.weight, torch.zeros_like(bias) if head == "cosine" else end.bias
        columns = columns_of(weight, head, scale).float()
        probes.append(Probe(columns, bias.float(), head, decay, end.value, end.iterations, end.converged))
    return probes


class Predictor(Protocol):
    """A classifier of features."""

    def predict(self, features: Tensor) -> Tensor:
        """Predicted class, (n,)."""
        ...


P = TypeVar("P", bound=Predictor)


def average_accuracy(predicted: Tensor, label: Tensor) -> float:
    """Average accuracy: the mean over the classes in `label` (n,) of their accuracies, in percent."""
    n_classes = int(torch.cat([predicted, label]).max()) + 1
    return float(np.nanmean(per_class_accuracy(predicted, label, n_classes)))


def select(features: Tensor, label: Tensor, probes: Sequence[P]) -> P:
    """Select the classifier with the best average validation accuracy, the first of equal ones.

    features (n, k) and label (n,) of the validation set. From a `path`, equal ones give the largest weight
    decay. Raises UserError for no classifier, or features that `check_features` refuses.
    """
    if not probes:
        raise UserError("No probe to select from: fit at least one.")
    check_features(features, label, "validation features")
    return max(probes, key=lambda probe: average_accuracy(probe.predict(features), label))

"""The linear probe: softmax regression on features, its path over weight decays, its selection."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from fgsynth.evaluate.metrics import per_class_accuracy
from fgsynth.latent.checks import check_features
from fgsynth.latent.probe.discriminant import check_classes, statistics
from fgsynth.latent.probe.objective import Objective
from fgsynth.latent.probe.solver import minimise
from fgsynth.train.losses import prior_counts
from fgsynth.utils.errors import UserError
from fgsynth.utils.parallel import SMALL

ROWS = 8192
"""About as many rows give the covariance behind the start and the coordinates; the objective is of all."""
ITERATIONS, TOLERANCE = 1000, 0.05
"""Of the solver: most iterations, and the largest share of the objective that may be above its minimum."""


@dataclass(frozen=True)
class Probe:
    """A linear probe: logits = features @ weight + bias, weight (k, c) and bias (c,).

    Of its fit: weight decay, objective reached in nats, iterations, and whether it converged (None where
    there was no fit).
    """

    weight: Tensor
    bias: Tensor
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
        return torch.addmm(self.bias, features, self.weight)

    def predict(self, features: Tensor) -> Tensor:
        """Predicted class, (n,)."""
        return self.logits(features).argmax(1)

    def adjusted(self, counts: Tensor, tau: float) -> "Probe":
        """Post-hoc logit adjustment (Menon et al. 2021, eq. 9): logits - tau log prior, from counts (c,)."""
        prior = prior_counts("real", counts)
        return replace(self, bias=self.bias - tau * (prior / prior.sum()).log().to(self.bias))


def fit_probe(
    features: Tensor, label: Tensor, n_classes: int, *, weight_decay: float, **options: Any
) -> Probe:
    """Fit a linear probe: a `path` of one weight decay."""
    return path(features, label, n_classes, [weight_decay], **options)[0]


def path(
    features: Tensor,
    label: Tensor,
    n_classes: int,
    weight_decays: Sequence[float],
    *,
    iterations: int = ITERATIONS,
    tolerance: float = TOLERANCE,
    share: Tensor | None = None,
    real: int | None = None,
) -> list[Probe]:
    """Fit a regularisation path: a probe per weight decay, from the largest down, each from the one before.

    By full-batch L-BFGS (`solver.minimise`), from zero, on softmax cross entropy + weight_decay |W|^2; the
    bias is free. scikit-learn's LogisticRegression has the same objective at C = 1 / (2 n weight_decay).
    Balanced softmax (Ren et al. 2020) is the probe `adjusted` by tau = 1: its shift is taken up by the bias.

    features (n, k) float32 and label (n,), every class with a row; share (n,): weights of the rows, of which
    only ratios matter; real: so many, the first, stand behind the solver's coordinates (None: all), which are
    found once then whatever stands after them. Raises UserError for features that `check_features` refuses,
    or a class without.
    """
    check_classes(features, label, n_classes)
    found = statistics(features, label, n_classes, ROWS, real)
    # Small problems in double precision: it costs little, and the optimum is known to more digits.
    rows = features.double() if features.numel() * n_classes < SMALL else features
    share = None if share is None else (share / share.mean()).to(rows)[:, None]
    at, probes = (rows.new_zeros(rows.shape[1], n_classes), rows.new_zeros(n_classes)), []
    for decay in sorted(weight_decays, reverse=True):
        end = minimise(Objective(rows, label, decay, share), found, at, iterations, tolerance)
        at, (weight, bias) = (end.weight, end.bias), (end.weight.float(), end.bias.float())
        probes.append(Probe(weight, bias, decay, end.value, end.iterations, end.converged))
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

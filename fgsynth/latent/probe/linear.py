"""The linear probe: (balanced) softmax regression on features, its path over weight decays, its selection."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fgsynth.evaluate.metrics import per_class_accuracy
from fgsynth.latent.checks import check_features
from fgsynth.latent.probe.discriminant import count_classes, no_empty_class, statistics
from fgsynth.latent.probe.objective import Head, Objective, columns_of, log_prior, rows_of
from fgsynth.latent.probe.solver import led_start, minimise
from fgsynth.train.losses import prior_counts
from fgsynth.utils.errors import UserError

SCALE = 16.0
"""Of the cosine head (our choice): logits from -16 to 16."""
ROWS = 8192
"""About as many rows give the covariance behind the start and the coordinates; the objective is of all."""
SELECTION = "best average validation accuracy (mean over classes), the first of equal ones"


@dataclass(frozen=True)
class Probe:
    """A linear probe: logits = rows @ weight + bias, rows as they are or, for a cosine head, at unit length.

    weight (k, c), columns at length `scale` for the cosine head; bias (c,). Of its fit: weight_decay, the
    objective in nats, passes over all features, and whether it converged (None: not checked).
    """

    weight: Tensor
    bias: Tensor
    head: Head = "linear"
    weight_decay: float = 0.0
    objective: float = float("nan")
    passes: int = 0
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
    features: Tensor,
    label: Tensor,
    counts: Tensor,
    *,
    weight_decay: float,
    balanced: float = 1.0,
    tau: float = 0.0,
    head: Head = "linear",
    scale: float = SCALE,
    iterations: int = 200,
    tolerance: float = 3e-3,
    start: Probe | None = None,
) -> Probe:
    """Linear probe by full-batch L-BFGS on (balanced) softmax cross entropy + weight_decay |W|^2, bias free.

    features (n, k), label (n,); counts (c,): n_c of balanced softmax and of logit adjustment by `tau`.
    scikit-learn's LogisticRegression has the same objective at C = 1 / (2 n weight_decay). Starts at `start`
    or at `led_start`; for `tolerance` see `minimise`. The cosine head (columns and rows at unit length, times
    `scale`) has no bias, and no weight decay as its logits do not depend on |W|.
    Raises UserError for features or parameters out of range, or a class without features.
    """
    return path(
        features, label, counts, [weight_decay], balanced=balanced, tau=tau, head=head, scale=scale,
        iterations=iterations, tolerance=tolerance, start=start,
    )[0]  # fmt: skip


def path(
    features: Tensor,
    label: Tensor,
    counts: Tensor,
    weight_decays: Sequence[float],
    *,
    balanced: float = 1.0,
    tau: float = 0.0,
    head: Head = "linear",
    scale: float = SCALE,
    iterations: int = 200,
    tolerance: float = 3e-3,
    start: Probe | None = None,
) -> list[Probe]:
    """Regularisation path: a probe per weight decay, from the largest down, each started at the one before.

    As `fit_probe`, which is a path of one; the optima are the same. Raises UserError as it does.
    """
    check_probe(weight_decays, balanced, head, scale)
    check_features(features, label)
    no_empty_class(count_classes(label, len(counts)))
    prior = log_prior(prior_counts("real", counts)).float()
    rows = rows_of(features, head)
    objective = Objective(rows, label, prior, balanced, 0.0, head, scale if head == "cosine" else 1.0)
    found = statistics(rows, label, len(counts), ROWS)
    decays = sorted(weight_decays, reverse=True)
    if start is None:
        weight, bias = led_start(replace(objective, weight_decay=decays[0]), found, iterations)
    else:
        weight, bias = start.weight, start.bias
    probes = []
    for decay in decays:
        if head == "cosine":
            weight, bias = F.normalize(weight, dim=0), torch.zeros_like(bias)
        objective = replace(objective, weight_decay=decay)
        end = minimise(objective, found, (weight, bias), iterations, tolerance)
        weight, bias = end.weight, torch.zeros_like(bias) if head == "cosine" else end.bias
        columns = columns_of(weight, head, objective.scale)
        fitted = Probe(columns, bias, head, decay, end.value, end.passes, end.converged)
        probes.append(fitted.adjusted(counts, tau) if tau else fitted)
    return probes


def check_probe(weight_decays: Sequence[float], balanced: float, head: str, scale: float) -> None:
    """Check of a probe's parameters. Raises UserError that names the first one out of range."""
    if head not in ("linear", "cosine"):
        raise UserError(f"Unknown head '{head}': choose 'linear' or 'cosine'.")
    if not weight_decays or not all(0 <= decay < float("inf") for decay in weight_decays):
        raise UserError(f"Weight decays {list(weight_decays)}: give at least one, each finite and 0 or more.")
    if head == "cosine" and any(weight_decays):
        raise UserError("The cosine head does not depend on |W|: give weight_decay 0 and choose its scale.")
    if not 0 <= balanced <= 1:
        raise UserError(f"Balanced {balanced}: give a weight of balanced softmax from 0 (plain) to 1.")
    if not 0 < scale < float("inf"):
        raise UserError(f"Scale {scale}: give a positive one.")


class Predictor(Protocol):
    """What tables treat alike: probes and the classifiers without synthetic data."""

    def logits(self, features: Tensor) -> Tensor:
        """Logits (n, c) of features (n, k)."""
        ...

    def predict(self, features: Tensor) -> Tensor:
        """Predicted class, (n,)."""
        ...


P = TypeVar("P", bound=Predictor)


def average_accuracy(predicted: Tensor, label: Tensor) -> float:
    """Average accuracy: the mean over the classes present in `label` (n,) of their accuracies, in percent."""
    n_classes = int(torch.cat([predicted, label]).max()) + 1
    return float(np.nanmean(per_class_accuracy(predicted, label, n_classes)))


def select(features: Tensor, label: Tensor, probes: Sequence[P]) -> P:
    """The classifier with the best average validation accuracy (mean over classes), the first of equal ones.

    features (n, k) and label (n,) of the validation set. From a `path`, equal ones give the largest weight
    decay. Raises UserError for no classifier, or features that `check_features` refuses.
    """
    if not probes:
        raise UserError("No probe to select from: fit at least one.")
    check_features(features, label, "validation features")
    return max(probes, key=lambda probe: average_accuracy(probe.predict(features), label))

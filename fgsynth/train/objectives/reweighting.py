"""Methods that change the loss: plain and balanced softmax, logit adjustment, class weights, focal, LDAM."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize, one_hot

from fgsynth.config.schema import NotNegative, Positive, Share
from fgsynth.models.networks import Classifier, last_layer, set_last_layer
from fgsynth.train.losses import balanced_softmax
from fgsynth.train.objective import Batch, Forward, Moment, Objective

Beta = Annotated[float, Field(ge=0, lt=1)]
"""Of the effective number of images (Cui et al. 2019)."""


@dataclass(frozen=True)
class ERM(Objective):
    """Empirical risk minimisation: cross entropy of images as they come."""

    name: ClassVar[str] = "ERM"

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Mean cross entropy, in nats."""
        return cross_entropy(network(batch.x)[0], batch.label)


@dataclass(frozen=True)
class BalancedSoftmax(Objective):
    """Balanced softmax (Ren et al. 2020, eq. 4); weight mixes it with cross entropy (FG appendix E)."""

    name: ClassVar[str] = "balanced softmax"
    weight: Share = 1.0

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Cross entropy on logits + log n_c."""
        return balanced_softmax(network(batch.x)[0], batch.label, at.counts, self.weight)


@dataclass(frozen=True)
class LogitAdjustment(Objective):
    """Logit adjusted loss: cross entropy on logits + tau log pi_c (Menon et al. 2021, eq. 10; tau 1 there).

    With tau 1 it is balanced softmax.
    """

    name: ClassVar[str] = "logit adjustment"
    tau: NotNegative = 1.0

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Cross entropy on adjusted logits; log n_c is log pi_c up to a constant, which softmax ignores."""
        return cross_entropy(network(batch.x)[0] + self.tau * at.counts.log(), batch.label)


@dataclass(frozen=True)
class ClassBalanced(Objective):
    """Class-balanced loss: cross entropy weighted by 1 / E_n (Cui et al. 2019, eq. 4).

    beta: 0.9999 for their imbalanced CIFAR. The weights sum to the number of classes, as theirs do.
    """

    name: ClassVar[str] = "class-balanced loss"
    beta: Beta = 0.9999

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Mean over images of weight times cross entropy."""
        each = cross_entropy(network(batch.x)[0], batch.label, reduction="none")
        return (class_weights(at.counts, self.beta)[batch.label] * each).mean()


def class_weights(counts: Tensor, beta: float) -> Tensor:
    """1 / E_n of classes of n images, (c,) float32, that sum to c (Cui et al. 2019, 4.1).

    E_n = (1 - beta^n) / (1 - beta) is the effective number of n images (eq. 2).
    """
    weight = 1 / ((1 - beta ** counts.double()) / (1 - beta))
    return (weight * (len(counts) / weight.sum())).float()


@dataclass(frozen=True)
class Focal(Objective):
    """Focal loss: -(1 - p_t)^gamma log p_t (Lin et al. 2017, eq. 4), of the softmax; gamma 2 there."""

    name: ClassVar[str] = "focal loss"
    gamma: NotNegative = 2.0

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Mean over images."""
        log_p = -cross_entropy(network(batch.x)[0], batch.label, reduction="none")
        return -((1 - log_p.exp()) ** self.gamma * log_p).mean()


class CosineLinear(nn.Linear):
    """A last layer of cosines: scale times the product of normalised embedding and class vectors, no bias."""

    def __init__(self, in_features: int, out_features: int, scale: float) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, k) -> (n, c), from -scale to scale."""
        return self.scale * linear(normalize(x, dim=1), normalize(self.weight, dim=1))


@dataclass(frozen=True)
class LDAM(Objective):
    """Label-distribution-aware margins C / n_c^(1/4) (eq. 13), deferred re-weighting (algorithm 1).

    margin: the rarest class's, 0.5; scale: of the cosines, 30; drw: part of the training after which classes
    are weighted, 160 of 200 epochs; beta: of the weights (Cui et al. 2019). All from the paper's settings.
    """

    name: ClassVar[str] = "LDAM-DRW"
    margin: NotNegative = 0.5
    scale: Positive = 30.0
    drw: Share = 0.8
    beta: Beta = 0.9999

    def wrap(self, network: Classifier, n_classes: int, seed: int) -> Classifier:
        """With a last layer of cosines."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            layer = CosineLinear(last_layer(network).in_features, n_classes, self.scale)
        return set_last_layer(network, layer)

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Cross entropy with the label's cosine lowered by its margin; weighted once `drw` has passed."""
        logits = network(batch.x)[0]
        lowered = one_hot(batch.label, logits.shape[1]) * margins(at.counts, self.margin)
        weight = class_weights(at.counts, self.beta) if at.progress >= self.drw else None
        return cross_entropy(logits - self.scale * lowered, batch.label, weight)


def margins(counts: Tensor, largest: float) -> Tensor:
    """C / n_c^(1/4), (c,), with C such that the rarest class has the largest (Cao et al. 2019, eq. 13)."""
    margin = counts**-0.25
    return largest * margin / margin.max()

"""Methods that change the loss alone: plain and balanced softmax, logit adjustment, class weights, focal."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from fgsynth.train.losses import balanced_softmax
from fgsynth.train.objective import Batch, Forward, Moment, Objective
from fgsynth.train.sampling import effective_number


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
    weight: float = 1.0

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Cross entropy on logits + log n_c."""
        return balanced_softmax(network(batch.x)[0], batch.label, at.counts, self.weight)


@dataclass(frozen=True)
class LogitAdjustment(Objective):
    """Logit adjusted loss: cross entropy on logits + tau log pi_c (Menon et al. 2021, eq. 10; tau 1 there).

    With tau 1 it is balanced softmax.
    """

    name: ClassVar[str] = "logit adjustment"
    tau: float = 1.0

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Cross entropy on adjusted logits; log n_c is log pi_c up to a constant, which softmax ignores."""
        return cross_entropy(network(batch.x)[0] + self.tau * at.counts.log(), batch.label)


@dataclass(frozen=True)
class ClassBalanced(Objective):
    """Class-balanced loss: cross entropy weighted by 1 / E_n (Cui et al. 2019, eq. 4).

    beta: 0.9999 for their imbalanced CIFAR. The weights sum to the number of classes, as theirs do.
    """

    name: ClassVar[str] = "class-balanced loss"
    beta: float = 0.9999

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Mean over images of weight times cross entropy."""
        each = cross_entropy(network(batch.x)[0], batch.label, reduction="none")
        return (class_weights(at.counts, self.beta)[batch.label] * each).mean()


def class_weights(counts: Tensor, beta: float) -> Tensor:
    """1 / E_n of classes of n images, (c,) float32, that sum to c (Cui et al. 2019, 4.1)."""
    weight = 1 / effective_number(counts.double(), beta)
    return (weight * (len(counts) / weight.sum())).float()


@dataclass(frozen=True)
class Focal(Objective):
    """Focal loss: -(1 - p_t)^gamma log p_t (Lin et al. 2017, eq. 4), of the softmax; gamma 2 there."""

    name: ClassVar[str] = "focal loss"
    gamma: float = 2.0

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Mean over images."""
        log_p = -cross_entropy(network(batch.x)[0], batch.label, reduction="none")
        return -((1 - log_p.exp()) ** self.gamma * log_p).mean()

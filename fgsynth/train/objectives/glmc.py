"""GLMC: a global and a local mixture of images, seen alike, and weights that grow (Du et al. 2023)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from fgsynth.models.networks import Classifier, last_layer
from fgsynth.train.objective import Batch, Forward, Moment, Objective
from fgsynth.train.objectives.mixing import mixed_cross_entropy, partners, pasted, ratio


class Projected(Classifier):
    """A classifier that in training returns projection and prediction (n, 2, k) in place of its embedding.

    As SimSiam's heads: two layers each, the prediction's through a quarter of the width (our sizes).
    """

    def __init__(self, network: Classifier, seed: int) -> None:
        super().__init__(network.network, network.prepare)
        k = last_layer(network).in_features
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.projection, self.prediction = _two_layers(k, k), _two_layers(k, max(1, k // 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: images (n, 3, h, w), as `Classifier` takes them."""
        logits, embedding = super().forward(x)
        if not self.training:
            return logits, embedding
        projected = self.projection(embedding)
        return logits, torch.stack([projected, self.prediction(projected)], 1)


def _two_layers(width: int, hidden: int) -> nn.Sequential:
    first = nn.Linear(width, hidden, bias=False)
    return nn.Sequential(first, nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, width))


@dataclass(frozen=True)
class GLMC(Objective):
    """Consistency of MixUp and CutMix, and a rebalanced loss that takes over: 1 - (T / T_max)^2 of the plain.

    beta: of lambda's Beta, 0.5; power: of the class weights 1 / n_c^power, 1.2; consistency: weight of the
    similarity, 4; the authors' settings for CIFAR-100-LT. balanced: the printed row is GLMC with balanced
    softmax, which we take in place of the weights (our reading). Pairs are drawn within a batch.
    """

    name: ClassVar[str] = "GLMC"
    beta: float = 0.5
    power: float = 1.2
    consistency: float = 4.0
    balanced: bool = True

    def wrap(self, network: Classifier, n_classes: int, seed: int) -> Classifier:
        """With SimSiam's two heads, of which nothing is left when it is evaluated."""
        return Projected(network, seed)

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Mean over images and both views, and the views' dissimilarity."""
        share, n = ratio(self.beta, at.draw("share")), len(batch.label)
        other = partners(n, at.draw("partners"), batch.label.device)
        mixed = share * batch.x + (1 - share) * batch.x[other]
        cut, left = pasted(batch.x, batch.x[other], share, at.draw("box"))
        logits, heads = network(torch.cat([mixed, cut]))
        labels, shares = (batch.label, batch.label[other]), (share, left)
        losses = [self._loss(part, *labels, s, at) for part, s in zip(logits.split(n), shares, strict=True)]
        return torch.stack(losses).mean() + self.consistency * dissimilarity(*heads.split(n))

    def _loss(self, logits: Tensor, first: Tensor, second: Tensor, share: float, at: Moment) -> Tensor:
        plain = mixed_cross_entropy(logits, first, second, share)
        if self.balanced:
            rebalanced = mixed_cross_entropy(logits + at.counts.log(), first, second, share)
        else:
            weight = at.counts**-self.power
            weight = weight * (len(weight) / weight.sum())
            rebalanced = (share * weight[first] + (1 - share) * weight[second]) * plain
        alpha = 1 - at.progress**2
        return (alpha * plain + (1 - alpha) * rebalanced).mean()


def dissimilarity(a: Tensor, b: Tensor) -> Tensor:
    """Minus the cosine of one view's prediction and the other's projection, which stands still (eq. 4).

    a, b: of two views, (n, 2, k), projection and prediction. From -1 to 1.
    """
    one = cosine_similarity(a[:, 1], b[:, 0].detach(), dim=1)
    other = cosine_similarity(b[:, 1], a[:, 0].detach(), dim=1)
    return -(one + other).mean() / 2

"""LDAM-DRW: larger margins for rarer classes, class weights late in training (Cao et al. 2019)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize, one_hot

from fgsynth.models.networks import Classifier, last_layer, set_last_layer
from fgsynth.train.objective import Batch, Forward, Moment, Objective
from fgsynth.train.objectives.reweighting import class_weights


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
    margin: float = 0.5
    scale: float = 30.0
    drw: float = 0.8
    beta: float = 0.9999

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

"""ResLT: residual branches for the classes of fewer images (Cui et al. 2022)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fgsynth.models.networks import Classifier
from fgsynth.train.objective import Batch, Forward, Moment, Objective
from fgsynth.train.objectives.branches import Branches


@dataclass(frozen=True)
class ResLT(Objective):
    """Three branches: of all classes, of medium and few, of few alone; their logits are added (section 3.2).

    (1 - alpha) times the loss of the sum, alpha that of the branches, each on the images of its classes.
    alpha: 0.99, as the authors' settings for ImageNet-LT have it. Our choices: a branch is a last stage and a
    last layer of its own; classes of up to `medium` images are medium, below `few` few, as in the tables.
    """

    name: ClassVar[str] = "ResLT"
    alpha: float = 0.99
    medium: int = 100
    few: int = 20

    def wrap(self, network: Classifier, n_classes: int, seed: int) -> Classifier:
        """With three branches."""
        return Branches(network, 3, seed, "sum")

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """The mean over images of the fused loss, and over all branches' images of theirs."""
        logits, n = network(batch.x)[0], at.counts[batch.label]
        mine = torch.stack([torch.ones_like(n), n <= self.medium, n < self.few], 1).float()
        each = torch.stack([cross_entropy(one, batch.label, reduction="none") for one in logits.unbind(1)], 1)
        fused = cross_entropy(logits.sum(1), batch.label)
        return (1 - self.alpha) * fused + self.alpha * (mine * each).sum() / mine.sum()

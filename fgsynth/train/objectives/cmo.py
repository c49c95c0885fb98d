"""CMO: images of rare classes pasted onto those of frequent ones (Park et al. 2022), by three experts."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from fgsynth.models.networks import Classifier
from fgsynth.train.objective import Batch, Drawing, Forward, Kind, Moment, Objective
from fgsynth.train.objectives.branches import Branches
from fgsynth.train.objectives.mixing import mixed_cross_entropy, pasted, ratio


@dataclass(frozen=True)
class CMO(Objective):
    """Context-rich minority oversampling: CutMix of background images, as they come, and rare foregrounds.

    foreground: how classes of foregrounds are drawn, q(1, k) ~ 1 / n_k there, "effective number" its other.
    probability: of a batch to be mixed; alpha: of lambda's Beta; rest: part of the training at its beginning
    and at its end without mixing, 3 of 100 epochs. All from the paper's settings. experts: 3, the printed
    row's (RIDE, Wang et al. 2021), 1 without. diversity: weight of the experts' mean divergence from all
    together, 0.2 in RIDE's release. Our choices: an expert is a last stage and a last layer; balanced softmax
    is its loss.
    """

    name: ClassVar[str] = "CMO"
    foreground: Kind = "inverse"
    probability: float = 0.5
    alpha: float = 1.0
    rest: float = 0.03
    experts: int = 3
    diversity: float = 0.2

    def second(self) -> Drawing:
        """The foregrounds."""
        return Drawing(self.foreground)

    def wrap(self, network: Classifier, n_classes: int, seed: int) -> Classifier:
        """With a branch per expert."""
        return network if self.experts == 1 else Branches(network, self.experts, seed, "mean")

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Mean over experts and images, less what their diversity is worth."""
        assert batch.other is not None
        x, share = batch.x, 1.0
        resting = not self.rest <= at.progress < 1 - self.rest
        if not resting and torch.rand(1, generator=at.draw("whether")).item() < self.probability:
            chosen = ratio(self.alpha, at.draw("share"))
            x, share = pasted(x, batch.other.x, chosen, at.draw("box"))
        logits = network(x)[0]
        heads = logits.unbind(1) if logits.ndim == 3 else (logits,)
        prior = at.counts.log()
        each = [mixed_cross_entropy(h + prior, batch.label, batch.other.label, share).mean() for h in heads]
        loss = torch.stack(each).mean()
        return loss if len(heads) == 1 else loss - self.diversity * divergence(logits)


def divergence(logits: Tensor) -> Tensor:
    """Mean KL(all || i) of experts i from their mean prediction, of logits (n, experts, c), in nats.

    The mean prediction, the softmax of their mean logits, stands still, as in RIDE's released loss: both
    ends free, experts run from each other without end and from the labels too.
    """
    together = logits.mean(1).log_softmax(1).detach()
    # torch's kl_div(a, b) is KL(b || a).
    each = [
        kl_div(h.log_softmax(1), together, reduction="batchmean", log_target=True) for h in logits.unbind(1)
    ]
    return torch.stack(each).mean()

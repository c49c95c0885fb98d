"""Several heads on one backbone, and the methods that train them: ResLT and CMO."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from fgsynth.config.schema import Count, NotNegative, Positive, Share
from fgsynth.models.networks import Classifier, last_layer
from fgsynth.train.objective import Batch, Drawing, Forward, Moment, Objective
from fgsynth.train.objectives.mixing import mixed_cross_entropy, pasted, ratio
from fgsynth.utils.errors import UserError


class Branches(Classifier):
    """A ResNet with `heads` last stages and last layers, which share all before them.

    In training logits are (n, heads, c); evaluated they are fused, their "mean" or their "sum", (n, c). The
    embedding is the mean of the branches', (n, k). All branches begin with the weights of the network's last
    stage; their last layers are drawn by the seed, but for the first. Raises UserError for other networks.
    """

    def __init__(self, network: Classifier, heads: int, seed: int, fuse: Literal["mean", "sum"]) -> None:
        super().__init__(network.network, network.prepare)
        inner: Any = self.network
        if not isinstance(getattr(inner, "layer4", None), nn.Module):
            raise UserError(
                f"{type(inner).__name__} has no last stage to have {heads} times: this method needs a ResNet."
            )
        layer, stage = last_layer(network), inner.layer4
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            others = [nn.Linear(layer.in_features, layer.out_features) for _ in range(heads - 1)]
        self.heads, self.fuse = heads, fuse
        self.stages = nn.ModuleList([stage, *(deepcopy(stage) for _ in others)])
        self.layers = nn.ModuleList(others)
        inner.layer4 = nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: images (n, 3, h, w), as `Classifier` takes them."""
        inner: Any = self.network
        shared = inner.forward_features(self.prepare(x))
        each = [inner.forward_head(stage(shared), pre_logits=True) for stage in self.stages]
        last = [inner.get_classifier(), *self.layers]
        logits = torch.stack([layer(e) for layer, e in zip(last, each, strict=True)], 1)
        embedding = torch.stack(each).mean(0)
        if self.training:
            return logits, embedding
        return (logits.mean(1) if self.fuse == "mean" else logits.sum(1)), embedding


@dataclass(frozen=True)
class ResLT(Objective):
    """ResLT: three branches: of all classes, of medium and few, of few alone; their logits are added.

    Cui et al. 2022, 3.2. (1 - alpha) times the loss of the sum, alpha that of the branches, each on the
    images of its classes. alpha: 0.99, as the authors' settings for ImageNet-LT have it. Our choices: a
    branch is a last stage and a last layer of its own; classes of up to `medium` images are medium, below
    `few` few, as in the tables.
    """

    name: ClassVar[str] = "ResLT"
    alpha: Share = 0.99
    medium: Count = 100
    few: Count = 20

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


@dataclass(frozen=True)
class CMO(Objective):
    """CMO: CutMix of background images, as they come, and rare foregrounds (Park et al. 2022).

    Classes of foregrounds are drawn by q(1, k) ~ 1 / n_k. probability: of a batch to be mixed; alpha: of
    lambda's Beta; rest: part of the training at its beginning and at its end without mixing, 3 of 100
    epochs. All from the paper's settings. experts: 3, the printed row's (RIDE, Wang et al. 2021), 1 without.
    diversity: weight of the experts' mean divergence from all together, 0.2 in RIDE's release. Our choices:
    an expert is a last stage and a last layer; balanced softmax is its loss.
    """

    name: ClassVar[str] = "CMO"
    probability: Share = 0.5
    alpha: Positive = 1.0
    rest: Share = 0.03
    experts: Count = 3
    diversity: NotNegative = 0.2

    def second(self) -> Drawing:
        """The foregrounds."""
        return Drawing("inverse")

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

"""Methods for unequal groups, a group being a class in a context: GroupDRO, IRM, LISA, RWG and SUBG.

Hyper-parameters are the papers', or where these search for them the defaults of SubpopBench (Yang et al.
2023), whose set-up FG table 3 takes.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fgsynth.config.schema import NotNegative, Positive, Share
from fgsynth.train.objective import Batch, Drawing, Forward, Moment, Objective
from fgsynth.train.objectives.mixing import Mixup
from fgsynth.train.objectives.reweighting import ERM
from fgsynth.utils.errors import UserError


@dataclass(frozen=True)
class RWG(ERM):
    """RWG: groups drawn equally often, plain cross entropy (Idrissi et al. 2022, section 2)."""

    name: ClassVar[str] = "RWG"
    grouped: ClassVar[bool] = True

    def drawing(self) -> Drawing:
        """All groups equally likely."""
        return Drawing("balanced", "group")


@dataclass(frozen=True)
class GroupDRO(RWG):
    """GroupDRO: the worst mixture of groups, by exponentiated gradient ascent (Sagawa et al. 2020, alg. 1).

    Groups are drawn as by RWG. q_g <- q_g exp(step l_g), normalised; the loss is sum_g q_g l_g, with l_g
    the mean loss of a group in the batch, 0 where it has no image. step: eta_q, SubpopBench's default, as
    is the absence of the adjustment by group size. Groups without training images have no weight.
    """

    name: ClassVar[str] = "GroupDRO"
    step: NotNegative = 0.01

    def state(self, counts: Tensor, group_counts: Tensor | None) -> dict[str, Tensor]:
        """`weights`: q, (g,), at first equal for all groups that have images."""
        present = (_of_groups(group_counts) > 0).to(counts)
        return {"weights": present / present.sum()}

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Sum of q_g l_g, with q_g after its step; over the images of all processes together."""
        each = cross_entropy(network(batch.x)[0], batch.label, reduction="none")
        group, nothing = _of_groups(batch.group), torch.zeros_like(_of_groups(at.group_counts))
        summed = nothing.index_add(0, group, each)
        size = nothing.index_add(0, group, torch.ones_like(each))
        everywhere = at.total(torch.stack([summed.detach(), size]))
        mean = everywhere[0] / everywhere[1].clamp(min=1)
        # A group that is not in the batch has a mean of 0 here, and keeps its weight up to the scale.
        weights = at.state["weights"] * (self.step * mean).exp()
        at.state["weights"] = weights = weights / weights.sum()
        # The trainer weights micro-batches by their sizes, of which a group's mean over all must be free.
        part = everywhere[1].sum() / len(each)
        return part * (weights * summed / everywhere[1].clamp(min=1)).sum()


@dataclass(frozen=True)
class IRM(Objective):
    """IRMv1: one classifier that is optimal in every environment, here context (Arjovsky et al. 2019, eq. 4).

    Mean over the contexts in the batch of risk R_e + weight times the squared slope of R_e(w logits) at
    w = 1, estimated without bias by the product of the slopes of two halves (appendix D). weight: from
    `start` of the training on, 1 before (SubpopBench: 100, from update 500 of 5,000 on). Divided by the
    weight where this is above 1, as in appendix D, so that the learning rate means the same before and after.
    """

    name: ClassVar[str] = "IRM"
    grouped: ClassVar[bool] = True
    weight: NotNegative = 100.0
    start: Share = 0.1

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Risk and penalty, means over the contexts in the batch."""
        logits = network(batch.x)[0]
        context = _contexts(batch, at)
        risk, penalty = [], []
        for one in context.unique():
            mine = context == one
            risk.append(cross_entropy(logits[mine], batch.label[mine]))
            penalty.append(invariance_penalty(logits[mine], batch.label[mine]))
        weight = self.weight if at.progress >= self.start else 1.0
        return (torch.stack(risk).mean() + weight * torch.stack(penalty).mean()) / max(1.0, weight)


def invariance_penalty(logits: Tensor, label: Tensor) -> Tensor:
    """The squared slope of the cross entropy of w * logits (n, c) at w = 1, by halves; 0 of one image.

    The slope of one image's is sum_k p_k z_k - z_y.
    """
    slope = (logits.softmax(1) * logits).sum(1) - logits.gather(1, label[:, None])[:, 0]
    if len(slope) < 2:
        return slope.sum() * 0
    return slope[::2].mean() * slope[1::2].mean()


@dataclass(frozen=True)
class LISA(Mixup):
    """LISA: mixup within a class across contexts, or in a context across classes (Yao et al. 2022, alg. 1).

    Each batch is mixed in one way, the first with probability `within_class`, by one lambda ~ Beta(alpha,
    alpha); both as the paper and SubpopBench have them. An image's partner is drawn among those of the
    batch that fit; one that has none stays as it is.
    """

    name: ClassVar[str] = "LISA"
    grouped: ClassVar[bool] = True
    alpha: Positive = 2.0
    within_class: Share = 0.5

    def others(self, batch: Batch, at: Moment) -> Tensor:
        """Whom each image is mixed with, (n,): of its class or of its context."""
        by_class = float(torch.rand((), generator=at.draw("way"))) < self.within_class
        label, context = batch.label.cpu(), _contexts(batch, at).cpu()
        same, differs = (label, context) if by_class else (context, label)
        return fitting(same, differs, at.draw("partners")).to(batch.label.device)


def fitting(same: Tensor, differs: Tensor, draw: torch.Generator) -> Tensor:
    """For each of n a random one of equal `same` and another `differs`, (n,); itself where there is none."""
    fits = (same[:, None] == same) & (differs[:, None] != differs)
    lonely = ~fits.any(1)
    fits |= torch.diag(lonely)
    return torch.multinomial(fits.float(), 1, generator=draw)[:, 0]


@dataclass(frozen=True)
class SUBG(RWG):
    """SUBG: of each group as many images as the smallest has, plain cross entropy (Idrissi et al. 2022)."""

    name: ClassVar[str] = "SUBG"

    def drawing(self) -> Drawing:
        """The same few images of every group, again and again."""
        return Drawing("subsampled", "group")


def _contexts(batch: Batch, at: Moment) -> Tensor:
    """Contexts of a batch, (n,), as groups are label * contexts + context."""
    return _of_groups(batch.group) % (len(_of_groups(at.group_counts)) // len(at.counts))


def _of_groups(value: Tensor | None) -> Tensor:
    if value is None:
        raise UserError("The batch has no groups: train on a data set whose images have contexts.")
    return value

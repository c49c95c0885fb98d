"""The contract of a method of imbalanced learning: how rows are drawn, a network's heads, a loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from fgsynth.config.checked import Checked
from fgsynth.models.networks import Classifier
from fgsynth.utils.seeds import generator

Forward = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A network under training, in the precision it is computed in: x -> logits, embedding, both float32."""


class Batch(NamedTuple):
    """Images x with labels (n,): uint8 (n, h, w, 3) as loaded, float (n, 3, h, w) in [-1, 1] for a loss.

    group: (n,) = label * contexts + context, for an objective that is `grouped`. other: as many images
    from a second stream, for an objective that has one.
    """

    x: Tensor
    label: Tensor
    group: Tensor | None = None
    other: "Batch | None" = None


def mapped(batch: Batch, each: Callable[[Tensor], Tensor]) -> Batch:
    """A function of every tensor of a batch."""
    group = None if batch.group is None else each(batch.group)
    other = None if batch.other is None else mapped(batch.other, each)
    return Batch(each(batch.x), each(batch.label), group, other)


@dataclass(frozen=True)
class Drawing(Checked):
    """How a mini-batch's rows are drawn from a set.

    "passes": every image once per pass, in a new order each. "balanced": a class (or group) that has any
    image, all equally likely, then one of its images. "inverse": the same, class k as likely as 1 / n_k
    (Zhou et al. 2020, BBN). "subsampled": passes over as many images of each class (group) as the smallest
    has, chosen once (Idrissi et al. 2022, SUBG). Classes without images are never drawn.
    """

    kind: Literal["passes", "balanced", "inverse", "subsampled"] = "passes"
    by: Literal["class", "group"] = "class"


PASSES = Drawing()


@dataclass(frozen=True)
class Moment:
    """Where a training is, and what else a loss may know.

    update: updates done before this one, of `updates` in all. counts: n_c, (c,) float32, as the recipe
    counts (real images by default). group_counts: training images by group, (g,) float32, g = c * contexts,
    0 for an empty group; None for an objective that is not grouped. state: the objective's tensors, in
    which a loss keeps what the next update needs. total: sum of a tensor over all processes, to be called
    by all of them. key: of this micro-batch's draws.
    """

    update: int
    updates: int
    counts: Tensor
    group_counts: Tensor | None
    state: dict[str, Tensor]
    total: Callable[[Tensor], Tensor]
    key: tuple[int, ...]

    @property
    def progress(self) -> float:
        """The part of the training that is done, from 0 to below 1."""
        return self.update / self.updates

    def draw(self, what: str) -> torch.Generator:
        """A generator on the CPU for one kind of draws; the same name begins anew."""
        return generator("objective", what, *self.key)


class Objective(Checked, ABC):
    """A method: frozen dataclasses of its hyper-parameters, of which only the loss has no default.

    name: in recipe.json and `fgsynth.train.objectives.registry.OBJECTIVES`. grouped: whether it needs groups.
    """

    name: ClassVar[str]
    grouped: ClassVar[bool] = False

    @abstractmethod
    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Mean over a micro-batch, a scalar; `network` is to be called once, as processes exchange gradients.

        Views of both streams are therefore joined, torch.cat([batch.x, batch.other.x]).
        """

    def drawing(self) -> Drawing:
        """How rows are drawn, in the real and in the synthetic set."""
        return PASSES

    def second(self) -> Drawing | None:
        """How the rows of `batch.other` are drawn, None without."""
        return None

    def wrap(self, network: Classifier, n_classes: int, seed: int) -> Classifier:
        """The network with the heads that the method trains.

        While it trains it may return what the loss wants; evaluated, logits (n, c) and embedding (n, k).
        """
        return network

    def state(self, counts: Tensor, group_counts: Tensor | None) -> dict[str, Tensor]:
        """Tensors that the loss changes (by assignment or in place); they are kept in checkpoints."""
        return {}

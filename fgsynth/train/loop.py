"""A network under training: data-parallel updates, mixed precision, micro-batches, and its state."""

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from fgsynth.data.images import from_uint8
from fgsynth.models.networks import Classifier, create
from fgsynth.train import checkpoint
from fgsynth.train.objective import Batch, Moment, Objective, mapped
from fgsynth.train.objectives.reweighting import BalancedSoftmax
from fgsynth.train.ranks import Ranks
from fgsynth.train.recipe import Compute, Recipe
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import stable_seed

DTYPES = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def finite(loss: Tensor, update: int, rate: float) -> float:
    """A loss as a number. Raises UserError naming the update if it is NaN or infinite."""
    value = loss.item()
    if not math.isfinite(value):
        raise UserError(f"The loss is {value} at update {update}: lower the rate ({rate:g} now).")
    return value


class Fit:
    """Network, optimiser, schedule, history: all that a training is in the midst of.

    group_counts: training images by group, for a grouped method. per_epoch: updates of an epoch. done:
    updates so far. rows: of whole epochs, for the history. memory: tensors that the method keeps. best,
    weights: the highest validation accuracy so far and the state that had it, where one is chosen.
    Raises UserError for batch norm in several processes without GPUs.
    """

    def __init__(
        self,
        recipe: Recipe,
        counts: Tensor,
        seed: int,
        ranks: Ranks,
        n_classes: int,
        per_epoch: int,
        compute: Compute,
        group_counts: Tensor | None = None,
    ) -> None:
        self.recipe, self.ranks, self.per_epoch, self.compute = recipe, ranks, per_epoch, compute
        device, self.seed = ranks.device, seed
        self.counts = counts.to(device, torch.float32)
        self.group_counts = None if group_counts is None else group_counts.to(device, torch.float32)
        self.objective: Objective = recipe.objective or BalancedSoftmax(recipe.balanced)
        self.memory = self.objective.state(self.counts, self.group_counts)
        network = _created(recipe, n_classes, seed, ranks)
        network = self.objective.wrap(network, n_classes, stable_seed("heads", seed))
        network = _synchronised(network, ranks, recipe.network)
        # Convolutions of small images are faster with channels last, on both kinds of devices.
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.ddp = _parallel(self.network, ranks)
        self.optimiser = recipe.build_optimiser(self.network.parameters())
        self.updates = recipe.epochs * per_epoch
        self.schedule = recipe.build_schedule(self.optimiser, self.updates)
        precision = compute.on(device)
        self.dtype = DTYPES[precision]
        # Gradients below 6e-8 are 0 in float16: the loss is scaled up ahead of them.
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.done, self.total, self.seconds, self.waited = 0, 0.0, 0.0, 0.0
        self.rows: list[dict[str, float]] = []
        self.best, self.weights = -math.inf, dict[str, Tensor]()

    @property
    def rate(self) -> float:
        """The learning rate now."""
        return float(self.optimiser.param_groups[0]["lr"])

    def update(self, batch: Batch) -> Tensor:
        """One step down the loss of a batch, of which this is the process's share, x uint8 (n, h, w, 3).

        Every `accumulate`-th image is a micro-batch, so that real and synthetic ones stay in proportion.
        Returns this process's part of the mean loss of the whole batch, which is the mean of the parts.
        """
        self.schedule.step_update(self.done)
        batch = mapped(batch, lambda t: t.to(self.ranks.device, non_blocking=True))
        self.optimiser.zero_grad()
        pieces = self.compute.accumulate
        loss = self._backward(batch, 0, pieces)
        for i in range(1, pieces):
            loss = loss + self._backward(batch, i, pieces)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.done += 1
        return loss

    def _backward(self, batch: Batch, i: int, pieces: int) -> Tensor:
        """Add a micro-batch's gradients, so weighted that all make the gradient of the batch's mean."""
        piece = _as_input(mapped(batch, lambda t: t[i::pieces]))
        # Processes exchange gradients once per update, with the last micro-batch.
        with self.ddp.no_sync() if self.ddp and i < pieces - 1 else contextlib.nullcontext():
            mean = self.objective.loss(self._forward, piece, self._moment(i))
            # Processes' gradients are averaged, so each is weighted by its share times their number.
            loss = mean * (len(piece.label) * self.ranks.size / self.recipe.batch)
            self.scaler.scale(loss).backward()
        return loss.detach()

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.ranks.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits, embedding = (self.ddp or self.network)(x)
        return logits.float(), embedding.float()

    def _moment(self, piece: int) -> Moment:
        key = (self.seed, self.done, self.ranks.rank, piece)
        known = (self.done, self.updates, self.counts, self.group_counts, self.memory)
        return Moment(*known, self.ranks.total, key)

    def epoch(self, feed: Iterator[Batch], stopping: Callable[[], bool]) -> dict[str, float] | None:
        """An epoch's updates, or what is left of them; its row of the history, None where asked to stop.

        Raises UserError for a loss that is not finite.
        """
        self.network.train()
        while True:
            start = perf_counter()
            batch = next(feed)
            self.waited += perf_counter() - start
            loss, stop = self._agreed(self.update(batch), stopping())
            self.total += finite(loss, self.done, self.recipe.rate)
            self.seconds += perf_counter() - start
            if self.done % self.per_epoch == 0:
                return self._row()
            if stop:
                return None

    def _agreed(self, loss: Tensor, stopping: bool) -> tuple[Tensor, bool]:
        """The whole batch's loss, and whether any process is asked to stop, so that all stop at once."""
        if self.ranks.size == 1:
            return loss, stopping
        sums = self.ranks.total(torch.stack([loss, loss.new_tensor(float(stopping))]))
        return sums[0] / self.ranks.size, bool(sums[1] > 0)

    def _row(self) -> dict[str, float]:
        row = {"updates": self.done, "loss": self.total / self.per_epoch, "rate": self.rate}
        times = {"seconds": self.seconds, "data_seconds": self.waited}
        self.total, self.seconds, self.waited = 0.0, 0.0, 0.0
        return {"epoch": self.done // self.per_epoch, **row, **times}

    def state(self) -> dict[str, Any]:
        """Everything that going on needs, as `checkpoint.write` takes it; to be called by all processes."""
        parts: dict[str, Any] = {"network": self.network, "optimiser": self.optimiser, "scaler": self.scaler}
        return {
            **{name: part.state_dict() for name, part in parts.items()},
            **{name: getattr(self, name) for name in _NOTED},
            "random": self.ranks.all(checkpoint.random_state(self.ranks.device)),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The opposite of `state`. With as many processes as before, to the bit on one kind of CPU."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        # Another precision than before has another scaler, which finds its scale itself.
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        for name in _NOTED:
            setattr(self, name, state[name])
        self.memory = {name: value.to(self.ranks.device) for name, value in self.memory.items()}
        if len(state["random"]) == self.ranks.size:
            checkpoint.restore_random(state["random"][self.ranks.rank], self.ranks.device)


_NOTED = ("done", "total", "seconds", "waited", "rows", "best", "weights", "memory")


def _as_input(batch: Batch) -> Batch:
    """With images as a network takes them."""
    other = None if batch.other is None else _as_input(batch.other)
    return batch._replace(x=from_uint8(batch.x), other=other)


def _created(recipe: Recipe, n_classes: int, seed: int, ranks: Ranks) -> Classifier:
    """The network before training. Pretrained weights are fetched by the first process, then found."""
    build = partial(create, recipe.network, n_classes, stable_seed("weights", seed), recipe.pretrained)
    network = build() if ranks.first else None
    ranks.wait()
    return build() if network is None else network


def _synchronised(network: Classifier, ranks: Ranks, name: str) -> Classifier:
    """With batch statistics of all processes together, as those of the whole batch."""
    if ranks.size == 1 or not any(isinstance(module, _BatchNorm) for module in network.modules()):
        return network
    if ranks.device.type == "cpu":
        raise UserError(
            f"The network '{name}' has batch norm, which several processes share on GPUs only: train it in "
            "one process here."
        )
    # timm's, not torch's: some of timm's batch norms hold an activation, which torch's would drop.
    converted: Classifier = convert_sync_batchnorm(network)
    return converted


def _parallel(network: Classifier, ranks: Ranks) -> DistributedDataParallel | None:
    if ranks.size == 1:
        return None
    devices = [ranks.device] if ranks.device.type == "cuda" else None
    # Buffers are equal in all processes anyway, as batch norm is synchronised.
    return DistributedDataParallel(
        network, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
    )

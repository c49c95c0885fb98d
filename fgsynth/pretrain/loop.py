"""The training loop of the mini networks: AdamW, moving average, checkpoints that resume exactly."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fgsynth.config.params import Training
from fgsynth.utils.paths import atomic
from fgsynth.utils.progress import progress
from fgsynth.utils.seeds import generator

Loss = Callable[[Tensor, torch.Generator], Tensor]
"""`loss(rows, generator)`: the mean loss of a batch of corpus rows."""


@dataclass(frozen=True)
class History:
    """How a training went: the mean loss of every so many updates, and the seconds of all its runs."""

    losses: list[float]
    seconds: float


def rate(plan: Training, update: int) -> float:
    """The learning rate at an update: warm-up, plateau, fall."""
    warm = min(1.0, (update + 1) / min(500, max(1, plan.updates // 10)))
    return plan.rate * warm * min(1.0, (plan.updates - update) / max(1.0, plan.cool * plan.updates))


class _Run:
    """A training and everything that resuming it needs."""

    def __init__(self, network: nn.Module, plan: Training, checkpoint: Path) -> None:
        self.network, self.plan, self.checkpoint = network, plan, checkpoint
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=plan.rate, weight_decay=0.01, betas=(0.9, 0.99)
        )
        self.average = {name: p.detach().clone() for name, p in network.state_dict().items()}
        self.start, self.losses, self.before = 0, list[float](), 0.0
        if checkpoint.exists():
            device = next(network.parameters()).device
            state = torch.load(checkpoint, map_location=device, weights_only=True)
            network.load_state_dict(state["network"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.start, self.average = state["update"], state["average"]
            self.losses, self.before = state["losses"], state["seconds"]
        self.begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Of training so far, over all runs."""
        return self.before + time.monotonic() - self.begun

    def step(self, update: int, loss: Tensor) -> None:
        """One update of the weights and of their moving average."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate(self.plan, update)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        decay = min(self.plan.decay, (update + 1) / (update + 10))
        with torch.no_grad():
            for name, p in self.network.state_dict().items():
                if p.is_floating_point():
                    self.average[name].lerp_(p, 1 - decay)

    def save(self, update: int, loss: float) -> None:
        """Write the checkpoint after an update, whole or not at all."""
        self.losses.append(loss)
        state = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "update": update + 1,
            "losses": self.losses,
            "seconds": self.seconds,
        }
        with atomic(self.checkpoint) as partial:
            torch.save(state, partial)


def train(
    network: nn.Module,
    loss: Loss,
    size: int,
    plan: Training,
    checkpoint: Path,
    every: int = 500,
) -> History:
    """Train in place and leave the moving average of the weights in `network`.

    Batches and noise are functions of the update's number, so a run resumed from its checkpoint ends where an
    undisturbed one does.
    """
    run = _Run(network.train(), plan, checkpoint)
    since: list[Tensor] = []
    for update in progress(range(run.start, plan.updates), checkpoint.stem):
        draw = generator(checkpoint.stem, update)
        value = loss(torch.randint(size, (plan.batch,), generator=draw), draw)
        run.step(update, value)
        since.append(value.detach())
        if (update + 1) % every == 0 or update + 1 == plan.updates:
            run.save(update, float(torch.stack(since).mean()))
            since.clear()
    network.load_state_dict(run.average)
    network.eval()
    return History(run.losses, run.seconds)

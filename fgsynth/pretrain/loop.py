"""The training loop of the mini networks: AdamW, moving average, checkpoints that resume exactly."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from fgsynth.params import Training
from fgsynth.progress import progress
from fgsynth.seeds import generator


def rate(plan: Training, update: int) -> float:
    """The learning rate at an update: warm-up, plateau, fall."""
    warm = min(1.0, (update + 1) / min(500, max(1, plan.updates // 10)))
    return plan.rate * warm * min(1.0, (plan.updates - update) / max(1.0, plan.cool * plan.updates))


def train(
    network: nn.Module,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    size: int,
    plan: Training,
    checkpoint: Path,
    every: int = 500,
) -> list[float]:
    """Trains in place and leaves the moving average of the weights in `network`.

    loss(rows, generator): mean loss of a batch of corpus rows. Batches and noise are functions of the
    update's number, so a run resumed from its checkpoint ends where an undisturbed one does.
    Returns the mean loss of every `every` updates.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.rate, weight_decay=0.01, betas=(0.9, 0.99))
    average = {name: p.detach().clone() for name, p in network.state_dict().items()}
    start, losses, since = 0, list[float](), 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        start, average, losses = state["update"], state["average"], state["losses"]
    network.train()
    device = next(network.parameters()).device
    total = torch.zeros((), device=device)
    for update in progress(range(start, plan.updates), checkpoint.stem):
        draw = generator(checkpoint.stem, update)
        rows = torch.randint(size, (plan.batch,), generator=draw)
        for group in optimiser.param_groups:
            group["lr"] = rate(plan, update)
        optimiser.zero_grad(set_to_none=True)
        value = loss(rows, draw)
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        total += value.detach()
        since += 1
        decay = min(plan.decay, (update + 1) / (update + 10))
        with torch.no_grad():
            for name, p in network.state_dict().items():
                if p.is_floating_point():
                    average[name].lerp_(p, 1 - decay)
        if (update + 1) % every == 0 or update + 1 == plan.updates:
            losses.append(float(total) / since)
            total.zero_()
            since = 0
            _save(
                checkpoint,
                {
                    "network": network.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "average": average,
                    "update": update + 1,
                    "losses": losses,
                },
            )
    network.load_state_dict(average)
    network.eval()
    return losses


def _save(path: Path, state: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)

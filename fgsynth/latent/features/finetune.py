"""Fine-tuning of the whole backbone, the reference for a linear probe on its frozen features."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn

from fgsynth.latent.probe.linear import average_accuracy
from fgsynth.train.losses import balanced_softmax
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator, stable_seed

BATCH, WEIGHT_DECAY = 64, 0.05


@dataclass(frozen=True, eq=False)
class FineTuned:
    """A fine-tuned backbone with its linear layer; seconds that training took; parameters it changed."""

    network: nn.Module
    seconds: float
    trainable: int
    rate: float

    @torch.no_grad()
    def predict(self, pixels: Tensor) -> Tensor:
        """Classes (n,) of prepared pixels (n, 3, h, w)."""
        return torch.cat([self.network(part).argmax(1).cpu() for part in pixels.split(512)])


def fine_tune(
    backbone: nn.Module,
    pixels: Tensor,
    label: Tensor,
    counts: Tensor,
    *,
    probe: tuple[Tensor, Tensor],
    rate: float,
    epochs: int,
    seed: int,
) -> FineTuned:
    """Fine-tune a copy of a backbone under balanced softmax: AdamW, cosine schedule, random flips.

    The linear layer starts at a probe, weight (k, c) and bias (c,) (LP-FT: Kumar et al., "Fine-Tuning can
    Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022). backbone: pixels
    (n, 3, h, w) -> features (n, k); counts: images per class, (c,); rate: the peak learning rate.
    Raises UserError for a loss that is not finite.
    """
    start, device = perf_counter(), pixels.device
    label, counts = label.to(device), counts.to(device)
    # A backbone's dropout draws from the global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_seed("fine-tuning dropout", seed))
        k, c = probe[0].shape
        head = nn.Linear(k, c)
        with torch.no_grad():
            head.weight.copy_(probe[0].T)
            head.bias.copy_(probe[1])
        network = nn.Sequential(deepcopy(backbone), head).to(device).requires_grad_(True).train()
        optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * -(-len(label) // BATCH))
        for i, rows in enumerate(_batches(len(label), epochs, seed)):
            loss = balanced_softmax(network(_flipped(pixels[rows], seed, i)), label[rows], counts)
            if not torch.isfinite(loss):
                raise UserError(f"Fine-tuning: the loss is {loss.item()} at update {i}: lower the rate.")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    trainable = sum(p.numel() for p in network.parameters())
    return FineTuned(network.eval().requires_grad_(False), perf_counter() - start, trainable, rate)


def best_by_validation(
    rates: Sequence[float], train: Callable[[float], FineTuned], pixels: Tensor, label: Tensor
) -> FineTuned:
    """Train with every rate and take the best average per-class validation accuracy, of equals the first."""
    return max(map(train, rates), key=lambda one: average_accuracy(one.predict(pixels), label))


def _batches(n: int, epochs: int, seed: int) -> Iterator[Tensor]:
    draw = generator("fine-tuning batches", seed)
    for _ in range(epochs):
        yield from torch.randperm(n, generator=draw).split(BATCH)


def _flipped(x: Tensor, seed: int, update: int) -> Tensor:
    flip = torch.rand(len(x), generator=generator("fine-tuning flips", seed, update)) < 0.5
    return torch.where(flip.to(x.device)[:, None, None, None], x.flip(3), x)

"""Fine-tuning the whole backbone: what a linear probe on its frozen features is held against."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor, nn

from fgsynth.evaluate.metrics import per_class_accuracy
from fgsynth.train.losses import balanced_softmax
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator, stable_seed


@dataclass(frozen=True, eq=False)
class FineTuned:
    """A fine-tuned backbone with its linear layer; seconds that training took; parameters it changed."""

    network: nn.Module
    seconds: float
    trainable: int
    rate: float

    @torch.no_grad()
    def predict(self, pixels: Tensor, batch: int = 512) -> Tensor:
        """Classes (n,) of prepared pixels (n, 3, h, w)."""
        return torch.cat([self.network(part).argmax(1) for part in pixels.split(batch)])


def fine_tune(
    backbone: nn.Module,
    pixels: Tensor,
    label: Tensor,
    counts: Tensor,
    *,
    rate: float,
    epochs: int,
    batch: int = 64,
    balanced: float = 1.0,
    weight_decay: float = 0.05,
    seed: int = 0,
    probe: tuple[Tensor, Tensor] | None = None,
) -> FineTuned:
    """Fine-tune a copy of a backbone under balanced softmax: AdamW, cosine schedule, random flips.

    backbone: pixels (n, 3, h, w) -> features (n, k), left as it is. counts: training images per class,
    (c,). rate: its peak. probe: weight (k, c) and bias (c,) that the linear layer starts at (LP-FT: Kumar et
    al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022); else
    it starts at zero. Raises UserError for a loss that is not finite.
    """
    start = perf_counter()
    # A backbone's dropout knows the global generator only.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_seed("fine-tuning dropout", seed))
        head = nn.Linear(backbone(pixels[:1]).shape[1], len(counts))
        weight, bias = probe or (torch.zeros_like(head.weight.T), torch.zeros_like(head.bias))
        with torch.no_grad():
            head.weight.copy_(weight.T)
            head.bias.copy_(bias)
        network = nn.Sequential(deepcopy(backbone), head).requires_grad_(True).train()
        optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * -(-len(label) // batch))
        for i, rows in enumerate(_batches(len(label), epochs, batch, seed)):
            loss = balanced_softmax(network(_flipped(pixels[rows], seed, i)), label[rows], counts, balanced)
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
    """The learning rate of the best average per-class validation accuracy; of equal ones the first."""
    c = int(label.max()) + 1
    tried = [train(rate) for rate in rates]
    scores = [per_class_accuracy(t.predict(pixels), label, c).mean() for t in tried]
    return tried[scores.index(max(scores))]


def _batches(n: int, epochs: int, batch: int, seed: int) -> Iterator[Tensor]:
    draw = generator("fine-tuning batches", seed)
    for _ in range(epochs):
        yield from torch.randperm(n, generator=draw).split(batch)


def _flipped(x: Tensor, seed: int, update: int) -> Tensor:
    flip = torch.rand(len(x), generator=generator("fine-tuning flips", seed, update)) < 0.5
    return torch.where(flip[:, None, None, None], x.flip(3), x)

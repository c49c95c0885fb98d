"""Training of classifiers on real images: the guide of feedback guidance."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fgsynth.models.networks import Classifier, small
from fgsynth.utils.errors import UserError
from fgsynth.utils.progress import progress
from fgsynth.utils.seeds import generator, stable_seed


def train_erm(
    x: Tensor, label: Tensor, n_classes: int, updates: int, seed: int, batch: int = 64, rate: float = 4e-3
) -> Classifier:
    """Empirical risk minimisation: cross entropy, AdamW, one cycle of the learning rate (Smith 2018).

    x: images (n, 3, h, w) in [-1, 1]; label (n,). Returns the frozen network of the last update.
    Raises UserError for a class without images.
    """
    empty = sorted(set(range(n_classes)) - set(label.tolist()))
    if empty:
        raise UserError(f"Class {empty[0]} has no images to train on: add some or leave the class out.")
    network = small(n_classes, stable_seed("guide weights", seed)).train()
    network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, updates)
    draw = generator("guide batches", seed)
    for _ in progress(range(updates), f"guide, seed {seed}"):
        rows = torch.randint(len(x), (batch,), generator=draw)
        optimiser.zero_grad()
        loss = cross_entropy(network(x[rows])[0], label[rows])
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval().requires_grad_(False)


@torch.no_grad()
def embed(network: Classifier, x: Tensor, batch: int = 512) -> tuple[Tensor, Tensor]:
    """Logits (n, c) and embeddings (n, k) of images, batch by batch, on the CPU."""
    device = next(network.parameters()).device
    parts = [network(part.to(device)) for part in x.split(batch)]
    return torch.cat([p[0] for p in parts]).cpu(), torch.cat([p[1] for p in parts]).cpu()

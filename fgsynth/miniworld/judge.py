"""The judge: a network that reads kind, context, mode and style off an image of the mini world."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from fgsynth.miniworld.scenery import CONTEXTS
from fgsynth.miniworld.world import N_MODES, SUBJECTS
from fgsynth.models.networks import Classifier, small
from fgsynth.utils.errors import missing

HEADS: dict[str, tuple[object, ...]] = {
    "kind": SUBJECTS,
    "context": (*CONTEXTS, ""),
    "mode": tuple(range(N_MODES)),
    "style": ("photo", "drawing"),
}
"""The hidden factors that it reads, and their values."""


def judge(seed: int = 0) -> Classifier:
    """The small timm network with one output per value of each factor, untrained."""
    return small(sum(len(values) for values in HEADS.values()), seed)


def load(file: Path) -> Classifier:
    """The trained judge from its safetensors file, frozen."""
    if not file.is_file():
        raise missing(file)
    network = judge()
    network.load_state_dict(
        {name: p.float() if p.is_floating_point() else p for name, p in load_file(file).items()}
    )
    return network.requires_grad_(False).eval()


def targets(factors: pd.DataFrame) -> Tensor:
    """Indices of the factors' values, (n, number of heads)."""
    columns = [pd.Categorical(factors[head], categories=list(values)).codes for head, values in HEADS.items()]
    return torch.from_numpy(np.stack(columns, 1).astype(np.int64))


def heads(logits: Tensor) -> dict[str, Tensor]:
    """The logits of each factor."""
    parts = logits.split([len(values) for values in HEADS.values()], dim=1)
    return dict(zip(HEADS, parts, strict=True))


@torch.no_grad()
def read(network: Classifier, x: Tensor, batch: int = 512) -> pd.DataFrame:
    """The judge's readings of images (n, 3, 32, 32) in [-1, 1]: columns kind, context, mode, style."""
    seen: dict[str, list[object]] = {head: [] for head in HEADS}
    for part in x.split(batch):
        for head, logits in heads(network(part)[0]).items():
            seen[head] += [HEADS[head][i] for i in logits.argmax(1).tolist()]
    return pd.DataFrame(seen)

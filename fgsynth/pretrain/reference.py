"""The reference network: reads kind, context, mode and style off a picture; the judge of synthetic sets."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fgsynth.miniworld.scenery import CONTEXTS
from fgsynth.miniworld.world import N_MODES, Draw
from fgsynth.networks import Classifier, small
from fgsynth.pretrain.corpus import SUBJECTS, Corpus, draw_corpus

STYLES = ("photo", "drawing")
HEADS = {"kind": SUBJECTS, "context": (*CONTEXTS, ""), "mode": tuple(range(N_MODES)), "style": STYLES}
EVEN = Draw(modes=(0.25,) * 4, drawings=0.3, drawn_classes=0.3, occluded=0.3, covered=0.5)
"""What the reference learns from: every appearance equally often."""


def reference(seed: int = 0) -> Classifier:
    """The small timm network with one output per value of each factor."""
    return small(sum(len(values) for values in HEADS.values()), seed)


def targets(factors: pd.DataFrame) -> Tensor:
    """Indices of the factors' values, (n, number of heads)."""
    columns = [pd.Categorical(factors[head], categories=values).codes for head, values in HEADS.items()]
    return torch.from_numpy(np.stack(columns, 1).astype(np.int64))


def heads(logits: Tensor) -> dict[str, Tensor]:
    """The logits of each factor."""
    parts = logits.split([len(values) for values in HEADS.values()], dim=1)
    return dict(zip(HEADS, parts, strict=True))


def reference_loss(network: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Sum of the factors' cross entropies."""
    return sum((cross_entropy(part, y[:, i]) for i, part in enumerate(heads(network(x)[0]).values())), torch.zeros(()))


@torch.no_grad()
def read(network: nn.Module, x: Tensor, batch: int = 512) -> pd.DataFrame:
    """What the reference sees in pictures (n, 3, 32, 32) in [-1, 1]: kind, context, mode, style."""
    seen: dict[str, list[object]] = {head: [] for head in HEADS}
    for part in x.split(batch):
        for head, logits in heads(network(part)[0]).items():
            seen[head] += [HEADS[head][i] for i in logits.argmax(1).tolist()]
    return pd.DataFrame(seen)


def even_corpus(per_subject: int, name: str) -> Corpus:
    """Pictures of every kind and place with every appearance equally often."""
    return draw_corpus(per_subject * len(SUBJECTS), name, EVEN)

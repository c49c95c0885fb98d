"""Training of the networks that read the mini world's factors off images."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fgsynth.miniworld.judge import heads
from fgsynth.miniworld.world import SUBJECTS, Draw
from fgsynth.models.networks import Classifier
from fgsynth.pretrain.corpus import Corpus, draw_corpus

EVEN = Draw(modes=(0.25,) * 4, drawings=0.3, drawn_classes=0.3, occluded=0.3, covered=0.5)
"""What the judge learns from: every appearance equally often."""


def even_corpus(per_subject: int, name: str) -> Corpus:
    """Images of every kind and place with every appearance equally often."""
    return draw_corpus(per_subject * len(SUBJECTS), name, EVEN)


def reading_loss(network: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Sum of the factors' cross entropies; y (n, number of factors)."""
    losses = [cross_entropy(part, y[:, i]) for i, part in enumerate(heads(network(x)[0]).values())]
    return torch.stack(losses).sum()

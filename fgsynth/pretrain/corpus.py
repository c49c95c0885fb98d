"""The web corpus: captioned images of every kind and place, never those of a benchmark."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fgsynth.miniworld.captions import captions
from fgsynth.miniworld.render import render
from fgsynth.miniworld.world import SUBJECTS, WEB, Draw, sample
from fgsynth.utils.progress import progress
from fgsynth.utils.seeds import stable_seed


@dataclass(frozen=True)
class Corpus:
    """Images (n, 3, 32, 32) uint8, a caption each, and the hidden factors, one row each."""

    images: Tensor
    captions: list[str]
    factors: pd.DataFrame

    def batch(self, rows: Tensor) -> Tensor:
        """Images as the networks take them, float32 in [-1, 1], channels last in memory."""
        return (self.images[rows].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def draw_corpus(n: int, name: str, draw: Draw) -> Corpus:
    """Draw n images, kinds and places in turn; `name` decides the seeds."""
    seeds = [stable_seed(name, i) for i in range(n)]
    factors = sample(seeds, [SUBJECTS[i % len(SUBJECTS)] for i in range(n)], draw)
    blocks = [
        render(factors.iloc[start : start + 4096]) for start in progress(range(0, n, 4096), f"{name} images")
    ]
    images = torch.from_numpy(np.concatenate(blocks)).permute(0, 3, 1, 2).contiguous()
    return Corpus(images, captions(factors), factors)


def web(n: int) -> Corpus:
    """The corpus that the mini generator is trained on."""
    return draw_corpus(n, "web", WEB)


class Siblings:
    """For every image the others of the same kind, mode and style: those on a web page about one thing."""

    def __init__(self, factors: pd.DataFrame) -> None:
        self.group = torch.from_numpy(
            factors.groupby(["kind", "mode", "style"], sort=True).ngroup().to_numpy(copy=True)
        )
        self.order = self.group.argsort(stable=True)
        self.size = self.group.bincount()
        self.start = self.size.cumsum(0) - self.size

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """One sibling of each row, drawn uniformly from its group (itself included)."""
        group = self.group[rows]
        share = torch.rand(len(rows), generator=generator, dtype=torch.float64)
        return self.order[self.start[group] + (share * self.size[group]).long()]

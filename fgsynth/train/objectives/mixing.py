"""Mixtures of two images and their labels: mixup, CutMix, and the methods that are no more than them."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fgsynth.train.objective import Batch, Forward, Moment, Objective


def ratio(alpha: float, draw: torch.Generator) -> float:
    """The share lambda ~ Beta(alpha, alpha) of the first image; decided by the generator's seed."""
    return float(np.random.default_rng(draw.initial_seed()).beta(alpha, alpha))


def partners(n: int, draw: torch.Generator, device: torch.device) -> Tensor:
    """Whom each of n images is mixed with: a random order, (n,)."""
    return torch.randperm(n, generator=draw).to(device)


def pasted(x: Tensor, y: Tensor, share: float, draw: torch.Generator) -> tuple[Tensor, float]:
    """CutMix: images x (n, 3, h, w) with a box of the images y (Yun et al. 2019, eq. 1 and 2).

    The box has 1 - share of the area, its centre is anywhere, what lies outside is cut off. Returns the
    images and the share of x that is left.
    """
    h, w = x.shape[2:]
    side = math.sqrt(1 - share)
    top, bottom = _interval(h, side, draw)
    left, right = _interval(w, side, draw)
    out = x.clone()
    out[:, :, top:bottom, left:right] = y[:, :, top:bottom, left:right]
    return out, 1 - (bottom - top) * (right - left) / (h * w)


def _interval(length: int, share: float, draw: torch.Generator) -> tuple[int, int]:
    centre, half = int(torch.randint(length, (1,), generator=draw)), int(length * share) // 2
    return max(0, centre - half), min(length, centre + half)


def mixed_cross_entropy(logits: Tensor, first: Tensor, second: Tensor, share: float | Tensor) -> Tensor:
    """Each image's cross entropy, (n,), with label `first` by the share (n,) and `second` by the rest."""
    a, b = (cross_entropy(logits, label, reduction="none") for label in (first, second))
    return share * a + (1 - share) * b


@dataclass(frozen=True)
class Mixup(Objective):
    """Mixup: convex mixtures of images and labels (Zhang et al. 2018, eq. 2).

    alpha: 0.2, as SubpopBench has it (FG table 3's protocol) and MiSLAS's first stage on ImageNet-LT.
    """

    name: ClassVar[str] = "mixup"
    alpha: float = 0.2

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Mean cross entropy with mixed labels; one lambda for a micro-batch."""
        share, other = ratio(self.alpha, at.draw("share")), _others(batch, at)
        logits = network(share * batch.x + (1 - share) * batch.x[other])[0]
        return mixed_cross_entropy(logits, batch.label, batch.label[other], share).mean()


@dataclass(frozen=True)
class Remix(Objective):
    """Remix: mixup whose label goes to the rarer class of an unequal pair (Chou et al. 2020, eq. 6).

    alpha: of the mixture, 1 (theirs on CIFAR); kappa: how many times as frequent the other class has to be,
    3; tau: up to which share of its image the frequent class loses the label, 0.5.
    """

    name: ClassVar[str] = "Remix"
    alpha: float = 1.0
    kappa: float = 3.0
    tau: float = 0.5

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Mean cross entropy with labels mixed by their own shares."""
        share, other = ratio(self.alpha, at.draw("share")), _others(batch, at)
        logits = network(share * batch.x + (1 - share) * batch.x[other])[0]
        first, second = batch.label, batch.label[other]
        of_label = self.label_share(share, at.counts[first], at.counts[second])
        return mixed_cross_entropy(logits, first, second, of_label).mean()

    def label_share(self, share: float, n_first: Tensor, n_second: Tensor) -> Tensor:
        """The first label's share, (n,): 0 or 1 where the rarer class takes it all, else the image's."""
        times = n_first / n_second
        out = torch.full_like(times, share)
        if share < self.tau:
            out = torch.where(times >= self.kappa, 0.0, out)
        if 1 - share < self.tau:
            out = torch.where(times <= 1 / self.kappa, 1.0, out)
        return out


def _others(batch: Batch, at: Moment) -> Tensor:
    return partners(len(batch.label), at.draw("partners"), batch.label.device)

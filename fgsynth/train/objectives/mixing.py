"""Mixtures of two images and their labels: mixup, CutMix, and methods of them: Mixup, Remix, GLMC."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from fgsynth.config.schema import NotNegative, Positive, Share
from fgsynth.models.networks import Classifier, last_layer
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
    alpha: Positive = 0.2

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Mean cross entropy with mixed labels; one lambda for a micro-batch."""
        share, other = ratio(self.alpha, at.draw("share")), self.others(batch, at)
        logits = network(share * batch.x + (1 - share) * batch.x[other])[0]
        first, second = batch.label, batch.label[other]
        of_label = self.label_share(share, at.counts[first], at.counts[second])
        return mixed_cross_entropy(logits, first, second, of_label).mean()

    def others(self, batch: Batch, at: Moment) -> Tensor:
        """Whom each image is mixed with, (n,)."""
        return partners(len(batch.label), at.draw("partners"), batch.label.device)

    def label_share(self, share: float, n_first: Tensor, n_second: Tensor) -> float | Tensor:
        """The first label's share, that of its image; n_first, n_second: images of both classes, (n,)."""
        return share


@dataclass(frozen=True)
class Remix(Mixup):
    """Remix: mixup whose label goes to the rarer class of an unequal pair (Chou et al. 2020, eq. 6).

    alpha: of the mixture, 1 (theirs on CIFAR); kappa: how many times as frequent the other class has to be,
    3; tau: up to which share of its image the frequent class loses the label, 0.5.
    """

    name: ClassVar[str] = "Remix"
    alpha: Positive = 1.0
    kappa: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 3.0
    tau: Share = 0.5

    def label_share(self, share: float, n_first: Tensor, n_second: Tensor) -> Tensor:
        """The first label's share, (n,): 0 or 1 where the rarer class takes it all, else the image's."""
        times = n_first / n_second
        out = torch.full_like(times, share)
        if share < self.tau:
            out = torch.where(times >= self.kappa, 0.0, out)
        if 1 - share < self.tau:
            out = torch.where(times <= 1 / self.kappa, 1.0, out)
        return out


class Projected(Classifier):
    """A classifier that in training returns projection and prediction (n, 2, k) in place of its embedding.

    As SimSiam's heads: two layers each, the prediction's through a quarter of the width (our sizes).
    """

    def __init__(self, network: Classifier, seed: int) -> None:
        super().__init__(network.network, network.prepare)
        k = last_layer(network).in_features
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.projection, self.prediction = _two_layers(k, k), _two_layers(k, max(1, k // 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: images (n, 3, h, w), as `Classifier` takes them."""
        logits, embedding = super().forward(x)
        if not self.training:
            return logits, embedding
        projected = self.projection(embedding)
        return logits, torch.stack([projected, self.prediction(projected)], 1)


def _two_layers(width: int, hidden: int) -> nn.Sequential:
    first = nn.Linear(width, hidden, bias=False)
    return nn.Sequential(first, nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, width))


@dataclass(frozen=True)
class GLMC(Objective):
    """Consistency of MixUp and CutMix, and a rebalanced loss that takes over: 1 - (T / T_max)^2 of the plain.

    beta: of lambda's Beta, 0.5; consistency: weight of the similarity, 4; the authors' settings for
    CIFAR-100-LT. The printed row is GLMC with balanced softmax, which we take in place of its class weights
    (our reading). Pairs are drawn within a batch.
    """

    name: ClassVar[str] = "GLMC"
    beta: Positive = 0.5
    consistency: NotNegative = 4.0

    def wrap(self, network: Classifier, n_classes: int, seed: int) -> Classifier:
        """With SimSiam's two heads, of which nothing is left when it is evaluated."""
        return Projected(network, seed)

    def loss(self, network: Forward, batch: Batch, at: Moment) -> Tensor:
        """Mean over images and both views, and the views' dissimilarity."""
        share, n = ratio(self.beta, at.draw("share")), len(batch.label)
        other = partners(n, at.draw("partners"), batch.label.device)
        mixed = share * batch.x + (1 - share) * batch.x[other]
        cut, left = pasted(batch.x, batch.x[other], share, at.draw("box"))
        logits, heads = network(torch.cat([mixed, cut]))
        labels, shares = (batch.label, batch.label[other]), (share, left)
        losses = [self._loss(part, *labels, s, at) for part, s in zip(logits.split(n), shares, strict=True)]
        return torch.stack(losses).mean() + self.consistency * dissimilarity(*heads.split(n))

    def _loss(self, logits: Tensor, first: Tensor, second: Tensor, share: float, at: Moment) -> Tensor:
        plain = mixed_cross_entropy(logits, first, second, share)
        rebalanced = mixed_cross_entropy(logits + at.counts.log(), first, second, share)
        alpha = 1 - at.progress**2
        return (alpha * plain + (1 - alpha) * rebalanced).mean()


def dissimilarity(a: Tensor, b: Tensor) -> Tensor:
    """Minus the cosine of one view's prediction and the other's projection, which stands still (eq. 4).

    a, b: of two views, (n, 2, k), projection and prediction. From -1 to 1.
    """
    one = cosine_similarity(a[:, 1], b[:, 0].detach(), dim=1)
    other = cosine_similarity(b[:, 1], a[:, 0].detach(), dim=1)
    return -(one + other).mean() / 2

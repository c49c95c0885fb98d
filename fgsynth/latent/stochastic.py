"""The probe for data that memory never holds: real and synthetic features in blocks, and SGD on them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from fgsynth.latent.checks import check_counts, check_features
from fgsynth.latent.probe.discriminant import count_classes, no_empty_class, statistics
from fgsynth.latent.probe.linear import ROWS, Probe, check_probe
from fgsynth.latent.probe.objective import Objective, log_prior
from fgsynth.latent.probe.solver import CLASS_DAMPING, centred, class_curvature, damped, discriminant_start
from fgsynth.latent.samplers.base import LatentSampler
from fgsynth.latent.samplers.noise import CHUNK
from fgsynth.train.losses import prior_counts
from fgsynth.utils.errors import UserError
from fgsynth.utils.progress import progress
from fgsynth.utils.seeds import generator

Block = tuple[Tensor, Tensor]
Batches = Callable[[int], Iterator[Block]]
"""The blocks of an epoch: features (m, k) and labels (m,), every block a fair mixture of the classes."""
GOLDEN = (math.sqrt(5) - 1) / 2
MOMENTUM = 0.9


def mixture(
    features: Tensor,
    label: Tensor,
    sampler: LatentSampler,
    counts: Tensor,
    *,
    rows: int = 2**18,
    seed: int = 0,
) -> Batches:
    """Real and synthetic features in blocks of about `rows` rows, each with its share of every class.

    features (n, k), label (n,); `sampler` is fitted, counts (c,) is what it gives per class. Real rows are
    dealt out at random. Synthetic rows go by whole chunks of 128, the unit that samplers make, so a class of
    few chunks is in as many blocks: large blocks mix better. Every epoch has the same rows.
    Raises UserError for features that `check_features` refuses, bad counts or fewer than one row.
    """
    check_features(features, label)
    check_counts(counts)
    if rows < 1:
        raise UserError(f"Blocks of {rows} rows: give at least 1.")
    parts = -(-(len(label) + int(counts.sum())) // rows)
    order = torch.randperm(len(label), generator=generator("latent mixture", seed))

    def blocks(_: int) -> Iterator[Block]:
        start = torch.zeros_like(counts)
        for i, real in enumerate(order.tensor_split(parts)):
            stop = _dealt(counts, i + 1, parts)
            new, new_label = sampler.sample_all(stop - start, seed, start=start)
            yield torch.cat([features[real], new]), torch.cat([label[real], new_label])
            start = stop

    return blocks


def _dealt(counts: Tensor, i: int, parts: int) -> Tensor:
    """Rows of every class that the first `i` of `parts` blocks hold, (c,): whole chunks, evenly dealt.

    Each class starts at another phase, so that classes of one chunk do not all fall into the same block.
    """
    chunks = (counts + CHUNK - 1) // CHUNK
    phase = torch.arange(len(counts), dtype=torch.double) * GOLDEN % 1
    done = (chunks * (i / parts) + phase).floor().long()
    return counts if i == parts else (done * CHUNK).minimum(counts)


def fit_probe_stream(
    batches: Batches,
    rows: int,
    counts: Tensor,
    epochs: int,
    *,
    weight_decay: float,
    balanced: float = 1.0,
    tau: float = 0.0,
    batch: int = 2048,
    rate: float = 0.1,
    seed: int = 0,
) -> Probe:
    """Linear probe by SGD with Nesterov momentum and a cosine schedule, on the objective of `fit_probe`.

    batches: see `Batches`; rows: how many an epoch has, for the schedule; counts (c,): n_c of balanced
    softmax and of logit adjustment by `tau`; batch: rows per step, shuffled within a block. Steps are taken
    as `Descent` does, from the shrinkage discriminant of the first block.
    The same seed gives the same probe. Its objective is not known, nor whether it converged.
    Raises UserError for parameters out of range, blocks that `check_features` refuses or whose width changes,
    an epoch without blocks, or a class that `counts` or the first epoch lacks.
    """
    check_probe([weight_decay], balanced, "linear", 1.0)
    if min(rows, epochs, batch) < 1 or not 0 < rate < math.inf:
        raise UserError(
            f"Rows {rows}, epochs {epochs}, batch {batch}, rate {rate}: give 1 or more, and a rate above 0."
        )
    prior = log_prior(prior_counts("real", counts)).float()
    descent, seen, done = None, torch.zeros(len(counts), dtype=torch.int64), 0
    for epoch in progress(range(epochs), "probe"):
        for number, (features, label) in enumerate(batches(epoch)):
            check_features(features, label, f"features of block {number}")
            seen += count_classes(label, len(counts), f"features of block {number}")
            if descent is None:
                descent = Descent(Objective(features, label, prior, balanced, weight_decay))
            order = torch.randperm(len(label), generator=generator("latent stream", seed, epoch, number))
            for mine in order.split(batch):
                # A short batch at the end of a block moves the probe, and the schedule, by less.
                falling = (1 + math.cos(math.pi * min(done / (rows * epochs), 1.0))) / 2
                descent.step(features[mine], label[mine], rate * falling * len(mine) / batch)
                done += len(mine)
        if descent is None:
            raise UserError("The first epoch has no blocks: give at least one.")
        no_empty_class(seen, "features in the first epoch")
    assert descent is not None
    probe = Probe(*descent.linear(), weight_decay=weight_decay)
    return probe.adjusted(counts, tau) if tau else probe


class Descent:
    """SGD with Nesterov momentum on a probe's objective, in coordinates in which it is nearly round.

    W = T v with T = axes / sqrt(variance + 2 weight_decay / a), by the first block's statistics: T whitens
    the features as far as the weight decay lets them matter. A class's steps are divided by its curvature,
    a is the mean one; so a rate has no unit, and 1 is a Newton step where classes do not interact.
    """

    def __init__(self, first: Objective) -> None:
        found = statistics(first.features, first.label, len(first.prior), ROWS)
        self.objective = replace(first, features=first.features[:0], label=first.label[:0], weight_decay=0.0)
        weight, bias = discriminant_start(first, found)
        self.mean = found.mean
        self.curvature = damped(class_curvature(first, weight, bias).diagonal(), CLASS_DAMPING)
        scale = (found.variance + 2 * first.weight_decay / self.curvature.mean()).rsqrt()
        self.whitening = found.axes * scale
        # |T v|^2 = sum of scale_i^2 v_i^2, as the axes are orthonormal.
        self.decay = 2 * first.weight_decay * scale.square()[:, None]
        self.v = (found.axes.T @ weight) / scale[:, None]
        self.bias = bias + self.mean @ weight
        self._momentum = torch.zeros_like(self.v), torch.zeros_like(self.bias)

    def step(self, features: Tensor, label: Tensor, rate: float) -> None:
        """One step on a batch of features (m, k), label (m,). Raises UserError for another width."""
        if features.shape[1] != len(self.mean):
            raise UserError(
                f"The first block has features of {len(self.mean)} dimensions, a later block "
                f"{features.shape[1]}: take all from one extractor."
            )
        rows = torch.addmm(-(self.mean @ self.whitening), features, self.whitening)
        _, slope, slope_b = replace(self.objective, features=rows, label=label)(self.v, self.bias)
        slopes = (slope + self.decay * self.v) / self.curvature, slope_b / self.curvature
        for at, g, momentum in zip((self.v, self.bias), slopes, self._momentum, strict=True):
            momentum.mul_(MOMENTUM).add_(g)
            at.sub_(rate * (g + MOMENTUM * momentum))

    def linear(self) -> Block:
        """The weight (k, c) and the bias (c,) of features as they come."""
        weight = self.whitening @ self.v
        return centred(weight, self.bias - self.mean @ weight)

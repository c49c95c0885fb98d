"""Settings of a classifier's training: recipe, optimiser, schedule, computation; random search."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from fgsynth.config.checked import Checked, checked
from fgsynth.config.schema import (
    Augment,
    Classification,
    Count,
    Counts,
    ListOf,
    NotNegative,
    Optimiser,
    Positive,
    Precision,
    Share,
)
from fgsynth.train.objective import Objective
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import stable_seed

MOMENTUM = 0.9
Exponent = Annotated[float, Field(allow_inf_nan=False)]
Range = Annotated[tuple[Exponent, Exponent], ListOf]
"""The exponents that are drawn between."""
Select = Literal["last", "best_average_val"]


@dataclass(frozen=True)
class Recipe(Checked):
    """Settings of training on real and synthetic images (FG step 5; rates are *not printed* there).

    network: "small", "slim", "thin" or the name of a timm network; pretrained: start from timm's weights.
    optimiser: "sgd" (momentum 0.9) or "adamw"; rate: its peak; warmup: share of the updates in which
    the rate rises to the peak, before it falls to 0 by a half cosine.
    updates_per_epoch: None is one pass over the real images.
    real_share: of each mini-batch (FG: one half; 0: none); without synthetic images all are real.
    balanced: weight of balanced softmax against plain cross entropy (FG appendix E); counts: its n_c.
    objective: another method than balanced softmax (of `train.objectives`); `balanced` is not used then.
    select: the weights of the last epoch, or of the best by average validation accuracy (SubpopBench's rule).
    augment: names, see fgsynth.data.augment; side: the input's, for images from files; None keeps their size.
    """

    network: str = "small"
    pretrained: bool = False
    optimiser: Optimiser = "adamw"
    rate: Positive = 4e-3
    weight_decay: NotNegative = 0.05
    epochs: Count = 10
    updates_per_epoch: Count | None = None
    batch: Annotated[int, Field(ge=2)] = 64
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    real_share: Share = 0.5
    balanced: Share = 1.0
    counts: Counts = "real"
    select: Select = "last"
    augment: Augment = ("crop", "flip")
    side: Count | None = None
    objective: Objective | None = None

    @classmethod
    def of(cls, settings: Classification) -> "Recipe":
        """The recipe of a stage's settings, which hold besides how a machine computes it."""
        return cls(**settings.model_dump(exclude={"workers", "precision", "accumulate"}))

    @property
    def grouped(self) -> bool:
        """Whether its objective needs the groups of images."""
        return self.objective is not None and self.objective.grouped

    def real_per_batch(self, with_synthetic: bool) -> int:
        """Real images in each mini-batch. Raises UserError where rounding leaves none of a kind."""
        if not with_synthetic:
            return self.batch
        real = round(self.real_share * self.batch)
        if real == self.batch or (not real and self.real_share):
            raise UserError(
                f"Recipe: real_share {self.real_share} of a batch of {self.batch} leaves {real} real and "
                f"{self.batch - real} synthetic images: at least one of each is needed."
            )
        return real

    def updates(self, n_real: int, with_synthetic: bool) -> int:
        """Updates per epoch, for a training set of n_real real images."""
        return self.updates_per_epoch or -(-n_real // (self.real_per_batch(with_synthetic) or self.batch))

    def build_optimiser(self, parameters: Iterable[Tensor]) -> Optimizer:
        """The optimiser of these parameters."""
        # Fused: one pass over all weights, which is a twentieth of an update of a small network.
        if self.optimiser == "sgd":
            return SGD(parameters, self.rate, momentum=MOMENTUM, weight_decay=self.weight_decay, fused=True)
        return AdamW(parameters, self.rate, weight_decay=self.weight_decay, fused=True)

    def build_schedule(self, optimiser: Optimizer, updates: int) -> CosineLRScheduler:
        """Linear warm-up and half a cosine to 0; `step_update(i)` goes ahead of update i, from 0."""
        warmup = min(round(self.warmup * updates), updates - 1)
        return CosineLRScheduler(
            optimiser,
            t_initial=updates - warmup,
            warmup_t=warmup,
            # The first update would be lost at a rate of 0.
            warmup_lr_init=self.rate / (warmup + 1),
            warmup_prefix=True,
            t_in_epochs=False,
        )


@dataclass(frozen=True)
class Compute(Checked):
    """Computation of a training on a machine; no part of the recipe, and no reason to train anew.

    What is trained changes by rounding only, but for what batch norm sees under `accumulate`.
    precision: of the forward pass by autocast, "no" (float32), "fp16" (with a scaled loss) or "bf16"; None is
    bfloat16 on a GPU and float32 on a CPU. accumulate: micro-batches per update, one after another, for
    batches that do not fit the memory; batch norm then sees the statistics of a micro-batch.
    checkpoint: seconds after which an epoch's end is kept on disk. A kill costs at most so many and an
    epoch; a training of seconds, of which the mini scale has many, writes none. 0 keeps every epoch.
    """

    precision: Precision | None = None
    accumulate: Count = 1
    checkpoint: NotNegative = 60.0

    def on(self, device: torch.device) -> Precision:
        """The precision on a device."""
        return self.precision or ("bf16" if device.type == "cuda" else "no")


@checked
def random_search(
    draws: Count, seed: int, rate: Range = (-4, -2), batch: Range = (6, 6.75)
) -> list[tuple[float, int]]:
    """Log-uniform draws of (rate, batch): 10^U(rate) and int(2^U(batch)) (Yang et al. 2023, SubpopBench).

    A longer search begins with the draws of a shorter one.
    """
    pairs = []
    for i in range(draws):
        random = np.random.default_rng(stable_seed("search", seed, i))
        pairs.append((float(10 ** random.uniform(*rate)), int(2 ** random.uniform(*batch))))
    return pairs

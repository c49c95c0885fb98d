"""Settings of a classifier's training, checked at the door: recipe, optimiser, schedule, computation."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from fgsynth.config.schema import Classification
from fgsynth.data.augment import check_names
from fgsynth.train.losses import Counts
from fgsynth.train.objective import Objective
from fgsynth.utils.errors import UserError

MOMENTUM = 0.9
Select = Literal["last", "best_average_val"]
Precision = Literal["no", "fp16", "bf16"]


@dataclass(frozen=True)
class Recipe:
    """Settings of training on real and synthetic images (FG step 5; rates are *not printed* there).

    network: "small", "slim", "thin" or the name of a timm network; pretrained: start from timm's weights.
    optimiser: "sgd" (momentum 0.9) or "adamw"; rate: its peak; warmup: share of the updates in which
    the rate rises to the peak, before it falls to 0 by a half cosine.
    updates_per_epoch: None is one pass over the real images.
    real_share: of each mini-batch (FG: one half); without synthetic images all are real.
    balanced: weight of balanced softmax against plain cross entropy (FG appendix E); counts: its n_c.
    objective: another method than balanced softmax (of `train.objectives`); `balanced` is not used then.
    select: the weights of the last epoch, or of the best by average validation accuracy (SubpopBench's rule).
    augment: names, see fgsynth.data.augment; side: the input's, for images from files; None keeps their size.
    Raises UserError naming the key.
    """

    network: str = "small"
    pretrained: bool = False
    optimiser: Literal["sgd", "adamw"] = "adamw"
    rate: float = 4e-3
    weight_decay: float = 0.05
    epochs: int = 10
    updates_per_epoch: int | None = None
    batch: int = 64
    warmup: float = 0.05
    real_share: float = 0.5
    balanced: float = 1.0
    counts: Counts = "real"
    select: Select = "last"
    augment: tuple[str, ...] = ("crop", "flip")
    side: int | None = None
    objective: Objective | None = None

    @classmethod
    def of(cls, settings: Classification) -> "Recipe":
        """The recipe of a stage's settings, which hold besides how a machine computes it."""
        return cls(**settings.model_dump(exclude={"workers", "precision", "accumulate"}))

    def __post_init__(self) -> None:
        # A list is what a YAML or JSON file holds.
        object.__setattr__(self, "augment", tuple(self.augment))
        check_names(self.augment)
        named = {"optimiser": ("sgd", "adamw"), "counts": get_args(Counts), "select": get_args(Select)}
        for key, choices in named.items():
            if getattr(self, key) not in choices:
                raise UserError(f"Recipe: unknown {key} '{getattr(self, key)}': choose {_or(choices)}.")
        _at_least(self, "epochs", 1)
        _at_least(self, "batch", 2)
        _at_least(self, "weight_decay", 0)
        for key in ("updates_per_epoch", "side"):
            if getattr(self, key) is not None:
                _at_least(self, key, 1)
        _require(self, 0 < self.rate < float("inf"), "rate", "positive and finite")
        _require(self, 0 <= self.warmup < 1, "warmup", "at least 0 and below 1")
        _require(self, 0 < self.real_share <= 1, "real_share", "above 0 and at most 1")
        _require(self, 0 <= self.balanced <= 1, "balanced", "from 0 to 1")

    @property
    def grouped(self) -> bool:
        """Whether its objective needs the groups of images."""
        return self.objective is not None and self.objective.grouped

    def real_per_batch(self, with_synthetic: bool) -> int:
        """Real images in each mini-batch. Raises UserError where rounding leaves none of a kind."""
        if not with_synthetic:
            return self.batch
        real = round(self.real_share * self.batch)
        if not 0 < real < self.batch:
            raise UserError(
                f"Recipe: real_share {self.real_share} of a batch of {self.batch} leaves {real} real and "
                f"{self.batch - real} synthetic images: at least one of each is needed."
            )
        return real

    def updates(self, n_real: int, with_synthetic: bool) -> int:
        """Updates per epoch, for a training set of n_real real images."""
        return self.updates_per_epoch or -(-n_real // self.real_per_batch(with_synthetic))

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
class Compute:
    """Computation of a training on a machine; no part of the recipe, and no reason to train anew.

    What is trained changes by rounding only, but for what batch norm sees under `accumulate`.
    precision: of the forward pass by autocast, "no" (float32), "fp16" (with a scaled loss) or "bf16"; None is
    bfloat16 on a GPU and float32 on a CPU. accumulate: micro-batches per update, one after another, for
    batches that do not fit the memory; batch norm then sees the statistics of a micro-batch.
    checkpoint: seconds after which an epoch's end is kept on disk. A kill costs at most so many and an
    epoch; a training of seconds, of which the mini scale has many, writes none. 0 keeps every epoch.
    Raises UserError naming the key.
    """

    precision: Precision | None = None
    accumulate: int = 1
    checkpoint: float = 60.0

    def __post_init__(self) -> None:
        if self.precision not in (None, *get_args(Precision)):
            raise UserError(
                f"Compute: unknown precision '{self.precision}': choose {_or(get_args(Precision))}."
            )
        _at_least(self, "accumulate", 1)
        _at_least(self, "checkpoint", 0)

    def on(self, device: torch.device) -> Precision:
        """The precision on a device."""
        return self.precision or ("bf16" if device.type == "cuda" else "no")


def _at_least(settings: "Recipe | Compute", key: str, bound: int) -> None:
    _require(settings, getattr(settings, key) >= bound, key, f"at least {bound}")


def _require(settings: "Recipe | Compute", holds: bool, key: str, what: str) -> None:
    if not holds:
        raise UserError(f"{type(settings).__name__}: {key} is {getattr(settings, key)}, must be {what}.")


def _or(choices: Iterable[str]) -> str:
    return " or ".join(f"'{c}'" for c in choices)

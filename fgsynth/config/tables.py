"""Parameters of the stages that fill the papers' tables; their meanings stand in params.yaml."""

from typing import Any, Generic, Literal

from pydantic import model_validator

from fgsynth.config import names
from fgsynth.config.names import FG_ENTROPY, UNGUIDED
from fgsynth.config.schema import (
    BeyondSettings,
    Classification,
    Count,
    Frozen,
    GroupsWorld,
    Inversion,
    LongTailWorld,
    Many,
    NotNegative,
    Positive,
    Sampling,
    Search,
    Sentence,
    Several,
    Share,
    Some,
    T,
    is_on_disk,
    validated,
)
from fgsynth.utils.errors import UserError


class Split(Frozen):
    """What the experiments on images share: where work is kept, and what is evaluated."""

    work: str
    split: Literal["test", "final"]
    seeds: Several
    sampling: Sampling
    training: Classification

    @model_validator(mode="after")
    def _reports_final(self) -> "Split":
        if self.split == "test" and is_on_disk(getattr(self, "world", None)):
            raise ValueError(
                "split 'test' is of the mini world: of a real set the official test split is 'final'"
            )
        return self


class ImagenetLt(Split):
    """Parameters of ImageNet-LT."""

    world: LongTailWorld
    amounts: Many[NotNegative]
    weights: Many[Share]

    @model_validator(mode="after")
    def _has_the_references(self) -> "ImagenetLt":
        if not {0.0, 1.0} <= set(self.amounts) or 1.0 not in self.weights:
            raise ValueError("amounts must contain 0.0 and 1.0, weights 1.0")
        return self


class PlacesLt(Split):
    """Parameters of Places-LT."""

    world: LongTailWorld
    second_epochs: Count


class Nicopp(Split):
    """Parameters of NICO++."""

    world: GroupsWorld
    draws: Count
    search: Search
    coefficients: Many[Positive]


class Two(Frozen, Generic[T]):
    """A value for each of the two benchmarks."""

    imagenet_lt: T
    nicopp: T


class Three(Frozen, Generic[T]):
    """A value for each of the three benchmarks."""

    imagenet_lt: T
    places_lt: T
    nicopp: T


class TwoWorlds(Frozen):
    """The two benchmarks."""

    imagenet_lt: LongTailWorld
    nicopp: GroupsWorld


class ThreeWorlds(Frozen):
    """The three benchmarks."""

    imagenet_lt: LongTailWorld
    places_lt: LongTailWorld
    nicopp: GroupsWorld


class Changed(Frozen):
    """The same of several benchmarks, with changes of the training by benchmark."""

    work: str
    split: Literal["test", "final"]
    seeds: Any
    worlds: Any
    sampling: Sampling
    fill_to: Any
    training: Classification
    changes: Any

    @model_validator(mode="after")
    def _changes_fit(self) -> "Changed":
        for name, changes in self.changes:
            try:
                validated(Classification, self.training.model_dump() | changes, f"changes.{name}")
            except UserError as error:
                raise ValueError(str(error).rstrip(".")) from error
        return self


class Baselines(Changed):
    """Parameters of the methods that the papers compare with, in the three tables."""

    seeds: Three[Several]
    worlds: ThreeWorlds
    fill_to: Three[Count | None]
    changes: Three[dict[str, Any]]
    second_epochs: Count
    draws: Count
    search: Search
    inversion: Inversion
    clip: str
    clip_rate: Positive
    sentences: Some[Sentence]


class Loops(Frozen):
    """Closed loops: cycles of continued, restarted, at most triggered, and early ones; when they trigger."""

    continued: Many[Count]
    restarted: Many[Count]
    triggered: Many[Count]
    early: Many[Count]
    patience: Count
    every: Count


REFERENCES = (UNGUIDED, FG_ENTROPY)
SHOWN = {
    "imagenet_lt": (
        *REFERENCES,
        names.SCALE_RULE,
        names.ALLOCATED,
        names.PROTOTYPE_FILTER,
        names.UNGUIDED_MORE,
    ),
    "nicopp": (*REFERENCES, names.UNGUIDED_MORE),
}
"""The methods that the notebook's figures and tables cannot do without."""


class Beyond(Changed):
    """Parameters of what neither paper did."""

    seeds: Two[Several]
    worlds: TwoWorlds
    fill_to: Two[Count | None]
    changes: Two[dict[str, Any]]
    settings: BeyondSettings
    methods: Two[Many[str]]
    loops: Two[Loops]

    @model_validator(mode="after")
    def _has_what_is_shown(self) -> "Beyond":
        for name in Two.model_fields:
            lacking = [method for method in SHOWN[name] if method not in getattr(self.methods, name)]
            if lacking:
                raise ValueError(
                    f"methods.{name} must contain '{lacking[0]}', which figures are about: add it"
                )
        return self

"""Parameters of the stages that fill the papers' tables; their meanings stand in params.yaml."""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field, model_validator

from fgsynth.config import names
from fgsynth.config.names import FG_ENTROPY, UNGUIDED
from fgsynth.config.schema import (
    BeyondSettings,
    Classification,
    Count,
    Distinct,
    Frozen,
    GroupsWorld,
    Inversion,
    ListOf,
    LongTailWorld,
    NotNegative,
    Positive,
    Sampling,
    Search,
    Sentence,
    Share,
    is_on_disk,
    validated,
)
from fgsynth.utils.errors import UserError

T = TypeVar("T")
Seeds = Annotated[int, Field(ge=2)]


class Split(Frozen):
    """What the experiments on images share: where work is kept, and what is evaluated."""

    work: str
    split: Literal["test", "final"]
    seeds: Annotated[int, Field(ge=2)]
    sampling: Sampling
    training: "Classification"

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
    amounts: Annotated[tuple[NotNegative, ...], ListOf, Distinct]
    weights: Annotated[tuple[Share, ...], ListOf, Distinct]

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
    coefficients: Annotated[tuple[Positive, ...], ListOf, Distinct]


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


class Baselines(Frozen):
    """Parameters of the methods that the papers compare with, in the three tables."""

    work: str
    split: Literal["test", "final"]
    seeds: Three[Seeds]
    worlds: ThreeWorlds
    sampling: Sampling
    fill_to: Three[Count | None]
    training: Classification
    changes: Three[dict[str, Any]]
    second_epochs: Count
    draws: Count
    search: Search
    inversion: Inversion
    clip: str
    clip_rate: Positive
    sentences: Annotated[tuple[Sentence, ...], ListOf, Distinct, Field(min_length=1)]
    methods: Three[Annotated[tuple[str, ...], ListOf, Distinct]] | None

    @model_validator(mode="after")
    def _fits(self) -> "Baselines":
        _check_changes(self)
        return self


SHOWN = (UNGUIDED, FG_ENTROPY, names.UNGUIDED_MORE)
"""The methods that notebook 08 cannot do without."""


class Beyond(Frozen):
    """Parameters of what neither paper did."""

    work: str
    split: Literal["test", "final"]
    seeds: Two[Seeds]
    worlds: TwoWorlds
    sampling: Sampling
    fill_to: Two[Count | None]
    training: Classification
    changes: Two[dict[str, Any]]
    settings: BeyondSettings
    methods: Two[Annotated[tuple[str, ...], ListOf, Distinct]]
    loops: Two[Annotated[tuple[Count, ...], ListOf, Distinct]]

    @model_validator(mode="after")
    def _fits(self) -> "Beyond":
        _check_changes(self)
        for name in Two.model_fields:
            if lacking := [method for method in SHOWN if method not in getattr(self.methods, name)]:
                raise ValueError(
                    f"methods.{name} must contain '{lacking[0]}', which figures are about: add it"
                )
        return self


def _check_changes(stage: Baselines | Beyond) -> None:
    for name, changes in stage.changes:
        try:
            validated(Classification, stage.training.model_dump() | changes, f"changes.{name}")
        except UserError as error:
            raise ValueError(str(error).rstrip(".")) from error

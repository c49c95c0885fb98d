"""Parameters of the notebook beyond the papers; their meanings stand beside them in params.yaml."""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import Field, model_validator

from fgsynth.config.schema import (
    Classification,
    Count,
    Frozen,
    GroupsWorld,
    ListOf,
    LongTailWorld,
    Positive,
    Sampling,
    Share,
    validated,
)

T = TypeVar("T")

REFERENCES = ("unguided", "FG entropy")
SHOWN = {
    "imagenet_lt": (
        *REFERENCES,
        "scale rule",
        "allocated",
        "filtered by prototype",
        "unguided, more images",
    ),
    "nicopp": (*REFERENCES, "unguided, more images"),
}
"""The ideas that the notebook's figures and tables cannot do without."""


class Both(Frozen, Generic[T]):
    """A value for each of the two benchmarks."""

    imagenet_lt: T
    nicopp: T


class BothWorlds(Frozen):
    """The two benchmarks."""

    imagenet_lt: LongTailWorld
    nicopp: GroupsWorld


class IdeaSettings(Frozen):
    """As `beyond.Settings`."""

    members: Annotated[int, Field(ge=2)]
    heads: Annotated[int, Field(ge=2)]
    level: Share
    pilot: Count
    grid: Annotated[tuple[Positive, ...], ListOf, Field(min_length=1)]
    worth: Annotated[float, Field(gt=0, le=1)]
    law: Positive | None
    confidence: Share
    seeds: Count


class Loops(Frozen):
    """Closed loops: cycles of continued, restarted, at most triggered, and early ones; when they trigger."""

    continued: Annotated[tuple[Count, ...], ListOf]
    restarted: Annotated[tuple[Count, ...], ListOf]
    triggered: Annotated[tuple[Count, ...], ListOf]
    early: Annotated[tuple[Count, ...], ListOf]
    patience: Count
    every: Count


class Beyond(Frozen):
    """Parameters of what neither paper did."""

    work: str
    split: Literal["test", "final"]
    seeds: Both[Annotated[int, Field(ge=2)]]
    worlds: BothWorlds
    sampling: Sampling
    fill_to: Both[Count | None]
    training: Classification
    changes: Both[dict[str, Any]]
    settings: IdeaSettings
    ideas: Both[Annotated[tuple[str, ...], ListOf]]
    loops: Both[Loops]

    @model_validator(mode="after")
    def _fits(self) -> "Beyond":
        for name in Both.model_fields:
            changes = getattr(self.changes, name)
            validated(Classification, self.training.model_dump() | changes, f"changes.{name}")
            lacking = [idea for idea in SHOWN[name] if idea not in getattr(self.ideas, name)]
            if lacking:
                raise ValueError(f"ideas.{name} must contain '{lacking[0]}', which figures are about: add it")
        return self

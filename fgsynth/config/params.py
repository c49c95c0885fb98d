"""params.yaml as typed, frozen models: an unknown or mistyped key is an error that names it."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from fgsynth.config.beyond_params import Beyond
from fgsynth.config.schema import (
    Classification,
    Count,
    Frozen,
    GroupsWorld,
    ImagenetLt,
    LatentProbe,
    ListOf,
    LongTail,
    LongTailWorld,
    Nicopp,
    PlacesLt,
    Positive,
    Sampling,
    Search,
    Share,
    is_on_disk,
    validated,
)
from fgsynth.utils.errors import UserError, missing

Scales = Annotated[list[Annotated[float, Field(ge=0, allow_inf_nan=False)]], Field(min_length=1)]
ScaleName = Literal["smoke", "mini", "full", "paper"]


class Toy2d(Frozen):
    """Parameters of the toy plane; their meanings stand beside them in params.yaml."""

    seeds: Annotated[int, Field(ge=2)]
    selection_seeds: Count
    n_points: Annotated[int, Field(ge=20)]
    n_samples: Count
    updates: Count
    epochs: Count
    n_steps: Annotated[int, Field(ge=1, le=1000)]
    every: Count
    scales: Scales

    @field_validator("scales")
    @classmethod
    def _has_the_reference(cls, scales: list[float]) -> list[float]:
        if 0.0 not in scales:
            raise ValueError("must contain 0.0, the unguided reference")
        return scales


class MiniWorld(Frozen):
    """A long tail of the mini world, and how images and classifiers of it are made."""

    world: LongTail
    sampling: Sampling
    training: Classification


class Ablations(Frozen):
    """Parameters of the sampler ablations; their meanings stand beside them in params.yaml."""

    work: str
    seeds: Annotated[int, Field(ge=2)]
    n_steps: Annotated[int, Field(ge=10, le=999, multiple_of=5)]
    per_class: Count
    few_classes: Annotated[int, Field(ge=1, le=24)]
    per_few: Count
    dropouts: Annotated[list[Share], Field(min_length=2)]
    scales: Annotated[list[Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field(min_length=1)]
    followed: Count
    mini_world: MiniWorld | None
    table_seeds: Annotated[int, Field(ge=2)]
    table_per_class: Count
    world: LongTailWorld
    sampling: Sampling
    training: Classification

    @model_validator(mode="after")
    def _has_the_references(self) -> "Ablations":
        if self.mini_world is None and is_on_disk(self.world):
            raise ValueError("mini_world is needed beside a real set, whose hidden factors are not known")
        sampling = (self.mini_world or self).sampling
        if not {0.0, sampling.dropout} <= set(self.dropouts):
            raise ValueError("dropouts must contain 0.0 and sampling.dropout")
        if sampling.scales["entropy"] not in self.scales:
            raise ValueError("scales must contain sampling.scales.entropy")
        return self


class OwnImages(Frozen):
    """Parameters of one's own images: an image folder, or "" for one of the mini world as `sample` says."""

    work: str
    images: str
    side: Annotated[int, Field(ge=8)]
    seeds: Annotated[int, Field(ge=2)]
    weakest: Count
    sample: LongTail
    sampling: Sampling
    training: Classification


class PerTable(Frozen):
    """Seeds of classifiers for each table."""

    imagenet_lt: Annotated[int, Field(ge=2)]
    places_lt: Annotated[int, Field(ge=2)]
    nicopp: Annotated[int, Field(ge=2)]


class Worlds(Frozen):
    """The benchmark of each table."""

    imagenet_lt: LongTailWorld
    places_lt: LongTailWorld
    nicopp: GroupsWorld


class FillTo(Frozen):
    """Images per class or group that synthetic ones fill up to, for each table."""

    imagenet_lt: Count | None
    places_lt: Count | None
    nicopp: Count | None


class Words(Frozen):
    """How Fill-Up learns words (`textual_inversion.Inversion`)."""

    updates: Count
    rate: Positive
    batch: Count
    template: str
    most: Count


class Baselines(Frozen):
    """Parameters of the methods that the papers compare with, in the three tables."""

    work: str
    split: Literal["test", "final"]
    seeds: PerTable
    worlds: Worlds
    sampling: Sampling
    fill_to: FillTo
    training: Classification
    changes: dict[Literal["imagenet_lt", "places_lt", "nicopp"], dict[str, Any]]
    second_epochs: Count
    draws: Count
    search: Search
    inversion: Words
    clip: str
    clip_rate: Positive
    sentences: Annotated[tuple[str, ...], ListOf, Field(min_length=1)]

    @model_validator(mode="after")
    def _changes_fit(self) -> "Baselines":
        for name in Worlds.model_fields:
            if name not in self.changes:
                raise ValueError(f"changes must name {name}, with {{}} for none")
            validated(Classification, self.training.model_dump() | self.changes[name], f"changes.{name}")
        return self


class Stages(Frozen):
    """One block per notebook stage."""

    toy_2d: Toy2d
    latent_probe: LatentProbe
    ablations: Ablations
    imagenet_lt: ImagenetLt
    places_lt: PlacesLt
    nicopp: Nicopp
    baselines: Baselines
    own_images: OwnImages
    beyond: Beyond


class Training(Frozen):
    """How one network of the mini unCLIP is trained.

    The learning rate warms up over 500 updates (a tenth, if fewer), stays at `rate`, and falls to zero
    over the last `cool` share; `decay` is that of the moving average of the weights.
    """

    updates: Count
    batch: Count
    rate: Annotated[float, Field(gt=0)]
    decay: Share
    cool: Share


class Conditioning(Frozen):
    """What of its condition a training image of the denoiser loses; meanings in params.yaml."""

    no_text: Share
    no_image: Share
    nothing: Share
    sibling: Share
    noised: Share
    level: Count


class Pretrain(Frozen):
    """The recipe of the mini unCLIP: sizes of its corpora, the training of its parts."""

    images: Count
    judged: Count
    judge: Training
    features: Training
    vae: Training
    vae_sharp: Training
    clip: Training
    denoiser: Training
    conditioning: Conditioning


class FeedbackMap(Frozen):
    """Settings of the map; meanings in params.yaml."""

    worlds: Count
    seeds: Count
    sampling: Sampling
    training: Classification
    early: Training
    early_images: Count


class Params(Frozen):
    """The whole of params.yaml. The smoke block only overrides the notebooks' own cells."""

    scale: ScaleName
    smoke: dict[str, dict[str, Any]]
    mini: Stages
    full: Stages
    paper: Stages
    pretrain: Pretrain
    feedback_map: FeedbackMap

    def overrides(self, stage: str) -> dict[str, Any]:
        """The parameters of a stage at the current scale, to be laid over the notebook's own cell.

        Raises UserError for a stage without parameters.
        """
        if stage not in Stages.model_fields:
            raise UserError(f"No stage '{stage}': choose one of {', '.join(Stages.model_fields)}.")
        if self.scale == "smoke":
            return dict(self.smoke.get(stage, {}))
        return dict(getattr(getattr(self, self.scale), stage).model_dump(mode="json"))


def load(path: Path) -> Params:
    """Read and check params.yaml. Raises UserError naming the file and the key."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise missing(path) from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected keys with values, found {type(raw).__name__}.")
    return validated(Params, raw, str(path))


def check_stage(stage: str, values: dict[str, Any], source: str) -> None:
    """Check a stage's complete parameters. Raises UserError naming the source and the key."""
    validated(Stages.model_fields[stage].annotation, values, source)

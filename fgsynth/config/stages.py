"""The stages that run a notebook, and their parameters, whose meanings stand in params.yaml."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from fgsynth.config import names
from fgsynth.config.schema import (
    Classification,
    Count,
    Distinct,
    Frozen,
    LatentSets,
    ListOf,
    LongTail,
    LongTailWorld,
    NotNegative,
    OfficialSets,
    Positive,
    Sampling,
    Share,
    is_on_disk,
)
from fgsynth.config.tables import Baselines, Beyond, ImagenetLt, Nicopp, PlacesLt
from fgsynth.utils.errors import UserError, renamed

NOTEBOOKS = {
    "toy_2d": "01_toy_2d",
    "latent_probe": "02_latent_probe",
    "ablations": "03_ablations",
    "imagenet_lt": "04_imagenet_lt",
    "places_lt": "05_places_lt",
    "nicopp": "06_nicopp",
    "beyond": "08_beyond",
    "baselines": "09_baselines",
    "own_images": "07_own_images",
    "own_features": "10_own_features",
}
"""Stage -> notebook, as in dvc.yaml; the order of the report."""

Scales = Annotated[list[NotNegative], Distinct, Field(min_length=1)]


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


class FineTuning(Frozen):
    """Fine-tuning of the whole backbone, which the linear probe is held against."""

    seeds: Annotated[int, Field(ge=2)]
    epochs: Count
    rates: Annotated[tuple[Positive, ...], ListOf, Distinct, Field(min_length=1)]


class LatentProbe(Frozen):
    """Parameters of the latent probe."""

    work: str
    seeds: Annotated[int, Field(ge=2)]
    sets: Annotated[tuple[str, ...], ListOf, Distinct, Field(min_length=1)]
    sources: LatentSets
    weight_decay: Annotated[tuple[NotNegative, ...], ListOf, Distinct, Field(min_length=1)]
    methods: Annotated[tuple[str, ...], ListOf, Distinct, Field(min_length=1)]
    updates: Count
    feedback_scale: NotNegative
    curve_methods: Annotated[tuple[str, ...], ListOf, Distinct, Field(min_length=1)]
    curve_seeds: Annotated[int, Field(ge=2)]
    amounts: Annotated[tuple[NotNegative, ...], ListOf, Distinct]
    shots: Annotated[tuple[Annotated[int, Field(ge=2)], ...], ListOf, Distinct]
    tuning: FineTuning
    bridged: str
    generator: str
    bridge_seeds: Annotated[int, Field(ge=2)]
    per_class: Count

    @model_validator(mode="after")
    def _has_features_of_images(self) -> "LatentProbe":
        if not any(name.endswith("_features") for name in self.sets):
            raise ValueError("sets must contain one that ends in _features, whose backbone is fine-tuned")
        for name in (*self.methods, *self.curve_methods):
            if name not in names.METHODS:
                raise ValueError(f"there is no method '{name}' of synthetic features: check its spelling")
        return self


class MiniWorld(Frozen):
    """A long tail of the mini world, and how images and classifiers of it are made."""

    world: LongTail
    sampling: Sampling
    training: Classification


class Gallery(Frozen):
    """Images to look at: of the rarest classes, with every criterion at every scale."""

    classes: Annotated[int, Field(ge=1, le=24)]
    per_class: Count
    scales: Annotated[list[Positive], Distinct, Field(min_length=1)]


class Ablations(Frozen):
    """Parameters of the sampler ablations; their meanings stand beside them in params.yaml."""

    work: str
    seeds: Annotated[int, Field(ge=2)]
    n_steps: Annotated[int, Field(ge=10, le=999, multiple_of=5)]
    per_class: Count
    few_classes: Annotated[int, Field(ge=1, le=24)]
    per_few: Count
    dropouts: Annotated[list[Share], Distinct, Field(min_length=2)]
    scales: Annotated[list[Positive], Distinct, Field(min_length=1)]
    gallery: Gallery
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
    """Parameters of one's own images: an image folder; the default one, if empty, is filled by `sample`."""

    work: str
    images: str
    unknown_images: Literal["stop", "go on"]
    side: Annotated[int, Field(ge=8)]
    seeds: Annotated[int, Field(ge=2)]
    weakest: Count
    sample: LongTail
    sampling: Sampling
    training: Classification


class OwnFeatures(Frozen):
    """Parameters of one's own photographs in feature space; `official`, if given, is taken for the folder."""

    work: str
    images: str
    official: str | None
    official_sets: OfficialSets
    extractor: str
    seeds: Annotated[int, Field(ge=2)]
    folds: Annotated[int, Field(ge=2)]
    samplers: Annotated[tuple[str, ...], ListOf, Distinct, Field(min_length=1)]
    weight_decay: Annotated[tuple[NotNegative, ...], ListOf, Distinct, Field(min_length=1)]
    shots: Annotated[tuple[Count, ...], ListOf, Distinct, Field(min_length=1)]
    sample: LongTail

    @field_validator("samplers")
    @classmethod
    def _are_samplers(cls, samplers: tuple[str, ...]) -> tuple[str, ...]:
        for name in samplers:
            if names.METHODS.get(name, ("",))[0] != "features":
                raise ValueError(f"there is no method '{name}' of synthetic features: check its spelling")
        return samplers


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
    own_features: OwnFeatures
    beyond: Beyond


class Smoke(Frozen):
    """Per stage, what replaces parameters of its notebook's own cell."""

    toy_2d: dict[str, Any]
    latent_probe: dict[str, Any]
    ablations: dict[str, Any]
    imagenet_lt: dict[str, Any]
    places_lt: dict[str, Any]
    nicopp: dict[str, Any]
    baselines: dict[str, Any]
    own_images: dict[str, Any]
    own_features: dict[str, Any]
    beyond: dict[str, Any]

    @field_validator("*")
    @classmethod
    def _declared(cls, values: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        for name in values:
            if name not in model(str(info.field_name)).model_fields:
                unknown = f"the notebook does not declare the parameter '{name}': check its spelling"
                raise ValueError(renamed(name) or unknown)
        return values


def model(stage: str) -> type[Frozen]:
    """The model of a stage's parameters. Raises UserError for a stage that there is not."""
    if stage not in Stages.model_fields:
        known = f"No stage '{stage}': choose one of {', '.join(Stages.model_fields)}."
        raise UserError(renamed(stage) or known)
    return Stages.model_fields[stage].annotation  # type: ignore[return-value]

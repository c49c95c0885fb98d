"""Settings of the experiments on images as typed, frozen models; their meanings stand in params.yaml."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from fgsynth.utils.errors import UserError

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


ListOf = BeforeValidator(_as_tuple)
"""YAML and notebooks write lists, frozen models hold tuples."""


class Frozen(BaseModel):
    """Strict about types and names, and unchangeable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LongTail(Frozen):
    """A long-tailed draw of the mini world."""

    n_max: Annotated[int, Field(ge=101)]
    n_min: Annotated[int, Field(ge=2, le=19)]
    strata: Annotated[tuple[Count, Count, Count], ListOf]
    n_val: Count
    n_test: Count
    modes: Annotated[tuple[Share, ...], ListOf, Field(min_length=1, max_length=4)]
    seed: int = 0


class Groups(Frozen):
    """A draw of the mini world by groups: classes in contexts."""

    n_max: Count
    n_min: Count
    empty: Annotated[int, Field(ge=0)]
    held_out: Annotated[int, Field(ge=3)]
    classes: Annotated[int, Field(ge=2, le=24)]
    modes: Annotated[tuple[Share, ...], ListOf, Field(min_length=1, max_length=4)]
    seed: int = 0


class OfficialLists(Frozen):
    """ImageNet-LT or Places-LT on disk: the folder of the images, that of the official lists (None: root).

    Relative folders are below the project's root.
    """

    source: Literal["disk"]
    root: str
    lists: str | None = None


class DrawnSplit(Frozen):
    """NICO++ on disk: the folder of the images, and that where the split of a seed is written or found."""

    source: Literal["disk"]
    root: str
    splits: str
    seed: int = 0


MADE, DISK = ":made", ":disk"
"""Which kind of world is meant; marked, so that sentences about a key leave it out."""


def is_on_disk(world: Any) -> bool:
    """Whether a world is a real set: those of the mini world have no `source`."""
    return "source" in world if isinstance(world, Mapping) else hasattr(world, "source")


_EITHER = Discriminator(lambda world: DISK if is_on_disk(world) else MADE)
LongTailWorld = Annotated[
    Annotated[LongTail, Tag(MADE)] | Annotated[OfficialLists, Tag(DISK)],
    _EITHER,
]
GroupsWorld = Annotated[Annotated[Groups, Tag(MADE)] | Annotated[DrawnSplit, Tag(DISK)], _EITHER]


class Sampling(Frozen):
    """How synthetic images are sampled.

    revision: of a generator on the hub; dtype: of its denoiser and encoders; tiny_decoder: folder or hub id
    of a small decoder that guidance looks through; reuse: push by the last gradient between guided steps;
    solver: a name of `samplers.SOLVERS`; batch: images at a time; side: in pixels, of the images as they
    are kept (None: as the generator draws them).
    """

    generator: str
    revision: str | None = None
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    tiny_decoder: str | None = None
    n_steps: Annotated[int, Field(ge=1, le=999)]
    every: Count
    start: Annotated[int, Field(ge=0)] = 0
    stop: int | None = None
    through_network: bool
    reuse: bool = False
    solver: Literal["ddim", "dpm++2m"] = "ddim"
    cfg: Annotated[float, Field(ge=1)]
    cfg_text: Annotated[float, Field(ge=1)]
    noise_level: Annotated[int, Field(ge=0, le=999)]
    dropout: Share
    scales: dict[Literal["entropy", "loss", "hardness", "combined"], Positive]
    fill_to: Count | None
    per_shard: Count = 10_000
    batch: Count = 64
    side: Count | None = None

    @model_validator(mode="after")
    def _all_scales(self) -> "Sampling":
        if len(self.scales) != 4:
            raise ValueError("scales must give entropy, loss, hardness and combined")
        return self


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
    amounts: Annotated[tuple[NotNegative, ...], ListOf]
    weights: Annotated[tuple[Share, ...], ListOf]

    @model_validator(mode="after")
    def _has_the_references(self) -> "ImagenetLt":
        if not {0.0, 1.0} <= set(self.amounts) or 1.0 not in self.weights:
            raise ValueError("amounts must contain 0.0 and 1.0, weights 1.0")
        return self


class Digits(Frozen):
    """A long-tailed draw of the digits, and their frozen feature map."""

    n_max: Annotated[int, Field(ge=2)]
    n_min: Annotated[int, Field(ge=2)]
    n_val: Count
    n_test: Count
    filters: Count


class LatentSets(Frozen):
    """Where feature sets come from."""

    extractor: str
    digits: Digits
    worlds: dict[str, LongTail]
    cifar100: str
    cifar100_val: Count
    places_lists: str
    places_images: str


class FineTuning(Frozen):
    """Fine-tuning of the whole backbone, which the linear probe is held against."""

    seeds: Annotated[int, Field(ge=2)]
    epochs: Count
    rates: Annotated[tuple[Positive, ...], ListOf, Field(min_length=1)]


class LatentProbe(Frozen):
    """Parameters of the latent probe."""

    work: str
    seeds: Annotated[int, Field(ge=2)]
    sets: Annotated[tuple[str, ...], ListOf, Field(min_length=1)]
    sources: LatentSets
    weight_decay: Annotated[tuple[NotNegative, ...], ListOf, Field(min_length=1)]
    ways: Annotated[tuple[str, ...], ListOf, Field(min_length=1)]
    updates: Count
    feedback_scale: NotNegative
    curve_ways: Annotated[tuple[str, ...], ListOf, Field(min_length=1)]
    curve_seeds: Annotated[int, Field(ge=2)]
    amounts: Annotated[tuple[NotNegative, ...], ListOf]
    shots: Annotated[tuple[Annotated[int, Field(ge=2)], ...], ListOf]
    tuning: FineTuning
    bridged: str
    generator: str
    bridge_seeds: Annotated[int, Field(ge=2)]
    per_class: Count

    @model_validator(mode="after")
    def _has_features_of_images(self) -> "LatentProbe":
        if not any(name.endswith("_features") for name in self.sets):
            raise ValueError("sets must contain one that ends in _features, whose backbone is fine-tuned")
        return self


class PlacesLt(Split):
    """Parameters of Places-LT."""

    world: LongTailWorld
    second_epochs: Count


class Search(Frozen):
    """Random search: exponents of 10 of the learning rate, exponents of 2 of the batch size."""

    rate: Annotated[tuple[float, float], ListOf]
    batch: Annotated[tuple[float, float], ListOf]


class Nicopp(Split):
    """Parameters of NICO++."""

    world: GroupsWorld
    draws: Count
    search: Search
    coefficients: Annotated[tuple[Positive, ...], ListOf]


class Classification(Frozen):
    """How classifiers are trained, the guide among them.

    side: in pixels, of what the classifier sees (None: images as they are); workers: processes that read
    files ahead; precision and accumulate: how a machine computes it (`recipe.Compute`).
    """

    network: str
    pretrained: bool
    optimiser: Literal["sgd", "adamw"]
    rate: Positive
    weight_decay: NotNegative
    epochs: Count
    updates_per_epoch: Count | None
    batch: Annotated[int, Field(ge=2)]
    balanced: Share
    counts: Literal["real", "real+synthetic", "batch"]
    augment: Annotated[tuple[Literal["crop", "flip", "jitter", "blur", "grey"], ...], ListOf]
    side: Count | None = None
    workers: Annotated[int, Field(ge=0)] = 0
    precision: Literal["no", "fp16", "bf16"] | None = None
    accumulate: Count = 1


def validated(model: Any, values: Any, source: str) -> Any:
    """`values` as a model. Raises UserError, one sentence per mistake, naming `source` and the key.

    A mistake in a block that YAML aliases repeat is named once, with the number of its copies.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        copies: dict[tuple[str, ...], list[Any]] = {}
        for e in error.errors():
            copies.setdefault((e["type"], str(e["loc"][-1:]), repr(e["input"])), []).append(e)
        sentences = [_sentence(source, same[0], len(same) - 1) for same in copies.values()]
        raise UserError(" ".join(sentences)) from error


def _sentence(source: str, error: Any, copies: int) -> str:
    key = ".".join(str(part) for part in error["loc"] if part not in (MADE, DISK))
    also = f" (and in {copies} more places)" if copies else ""
    if error["type"] == "extra_forbidden":
        return f"{source}: unknown key '{key}'{also}: check its spelling or remove it."
    if error["type"] == "missing":
        return f"{source}: key '{key}' is missing{also}: add it."
    return f"{source}: key '{key}' is {error['input']!r}{also}: {error['msg'][0].lower()}{error['msg'][1:]}."

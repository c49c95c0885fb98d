"""Typed, frozen models of the settings that several stages share; their meanings stand in params.yaml."""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from fgsynth.config.blocks import Key
from fgsynth.utils.errors import RENAMED, UserError, renamed

Count = Annotated[int, Field(ge=1)]
NotNegativeCount = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _with_name(sentence: str) -> str:
    if "{}" not in sentence:
        raise ValueError("must hold {} where the name of the class goes")
    return sentence


def _distinct(value: Any) -> Any:
    if isinstance(value, list | tuple) and any(one in value[:i] for i, one in enumerate(value)):
        raise ValueError("a value stands twice: remove one")
    return value


ListOf = BeforeValidator(_as_tuple)
"""YAML and notebooks write lists, frozen models hold tuples."""
Distinct = BeforeValidator(_distinct)
"""A value that a list has twice would be run twice, or not at all, and be told once."""
Sentence = Annotated[str, AfterValidator(_with_name)]
"""A sentence about a class, with {} for its name."""
Optimiser = Literal["sgd", "adamw"]
Counts = Literal["real", "real+synthetic", "batch"]
Precision = Literal["no", "fp16", "bf16"]
Augment = Annotated[tuple[Literal["crop", "flip", "jitter", "blur", "grey"], ...], ListOf, Distinct]


class Frozen(BaseModel):
    """Strict about types and names, finite in all numbers, and unchangeable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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
    batch: images at a time; side: in pixels, of the images as they are kept (None: as the generator draws
    them).
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
        if not range(self.n_steps)[self.start : self.stop]:
            raise ValueError(f"start and stop leave none of {self.n_steps} steps to be guided")
        return self


class Digits(Frozen):
    """A long-tailed draw of the digits, and their frozen feature map."""

    n_max: Annotated[int, Field(ge=2)]
    n_min: Annotated[int, Field(ge=2)]
    n_val: Count
    n_test: Count
    filters: Count


class OfficialSets(Frozen):
    """Where the long-tailed sets of the paper are on disk."""

    cifar100: str
    places_lists: str
    places_images: str


class LatentSets(OfficialSets):
    """Where feature sets come from."""

    extractor: str
    digits: Digits
    worlds: dict[str, LongTail]
    cifar100_val: Count


class Search(Frozen):
    """Random search: exponents of 10 of the learning rate, exponents of 2 of the batch size."""

    rate: Annotated[tuple[float, float], ListOf]
    batch: Annotated[tuple[float, float], ListOf]


class Classification(Frozen):
    """How classifiers are trained, the guide among them.

    side: in pixels, of what the classifier sees (None: images as they are); workers: processes that read
    files ahead; precision and accumulate: how a machine computes it (`recipe.Compute`).
    """

    network: str
    pretrained: bool
    optimiser: Optimiser
    rate: Positive
    weight_decay: NotNegative
    epochs: Count
    updates_per_epoch: Count | None
    batch: Annotated[int, Field(ge=2)]
    balanced: Share
    counts: Counts
    augment: Augment
    side: Count | None = None
    workers: NotNegativeCount = 0
    precision: Precision | None = None
    accumulate: Count = 1


MARK = "*"
"""Stands for the learned word in a template, as in the paper."""


class Inversion(Frozen):
    """Settings of textual inversion; defaults are the paper's (section 4), but for the template and `most`.

    Parameters
    ----------
    updates, rate, batch
        Of Adam, at a constant rate (0.005 times 8 images in the paper).
    template
        Prompt with MARK for the word, for learning and for sampling.
    most
        Images of a class that are learned from, the first of its rows.
    """

    updates: Count = 5000
    rate: Positive = 0.04
    batch: Count = 8
    template: str = f"a photo of {MARK}"
    most: Count = 100

    @field_validator("template")
    @classmethod
    def _has_one_word(cls, template: str) -> str:
        if template.split().count(MARK) != 1:
            raise ValueError(f"must have one word '{MARK}'")
        return template


class BeyondSettings(Frozen):
    """Settings of the methods beyond the papers, besides those of the experiment.

    Parameters
    ----------
    heads
        Of the epistemic guide.
    worth, law
        Of the allocation: a synthetic image in real ones; exponent of errors (None: fitted).
    tail
        Share of a class's images that the filter drops at either end.
    seeds
        Classifiers whose validation errors decide allocations.
    """

    heads: Annotated[int, Field(ge=2)]
    worth: Annotated[float, Field(gt=0, le=1)]
    law: Positive | None
    tail: Annotated[float, Field(gt=0, lt=0.5)]
    seeds: Count


def validated(model: Any, values: Any, source: str, written: Callable[[Key], Key] = lambda key: key) -> Any:
    """`values` as a model. Raises UserError, one sentence per mistake, naming `source` and the key.

    written: where in the source the value of a key stands; a mistake there is told once, however many
    keys take their value from it.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(" ".join(f"{source}: {each}" for each in _sentences(error, written))) from error


def _sentences(error: ValidationError, written: Callable[[Key], Key]) -> Iterator[str]:
    errors = [
        (tuple(str(part) for part in e["loc"] if part not in (MADE, DISK)), e["type"], e["msg"], e["input"])
        for e in error.errors()
    ]
    old = {(*key[:-1], RENAMED.get(key[-1])) for key, kind, *_ in errors if kind == "extra_forbidden"}
    told: set[tuple[Any, ...]] = set()
    for key, kind, said, value in errors:
        message = said.removeprefix("Value error, ")
        of_many = kind == "value_error" and isinstance(value, dict)  # between the keys of a mapping
        once = (key[-1:] if of_many else written(key), kind, message)
        if once in told or (kind == "missing" and key in old):
            continue
        told.add(once)
        name = ".".join(key if kind == "missing" else written(key))
        if kind == "extra_forbidden":
            yield renamed(key[-1]) or f"unknown key '{name}': check its spelling or remove it."
        elif kind == "missing":
            yield f"key '{name}' is missing: add it."
        elif of_many:
            yield f"'{name}': {message}." if name else f"{message}."
        else:
            yield f"key '{name}' is {_shown(value)}: {message[0].lower()}{message[1:]}."


def _shown(value: Any) -> str:
    """A value as it was given; by its type where it would fill the screen."""
    whole = repr(value)
    return whole if len(whole) <= 80 and "\n" not in whole else f"a {type(value).__name__}"

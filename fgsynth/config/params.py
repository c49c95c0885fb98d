"""params.yaml as typed, frozen models: an unknown or mistyped key is an error that names it."""

from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from fgsynth.config.blocks import SCALES, Resolver, ScaleName, read
from fgsynth.config.schema import (
    Classification,
    Count,
    Distinct,
    Frozen,
    ListOf,
    LongTail,
    Positive,
    Sampling,
    Share,
    validated,
)
from fgsynth.config.stages import Smoke, Stages, model
from fgsynth.utils.errors import UserError

IMAGES = ("blocks", "own_folder", "images")
"""The folder of one's own images stands here alone, as dvc.yaml makes the stage depend on what it names."""


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


class Denoisers(Training):
    """How other denoisers are trained, on so many images each."""

    images: Count


class Moved(Frozen):
    """Values that the map moves away from its base, besides guides, criteria and generators."""

    amounts: Annotated[tuple[Count, ...], ListOf, Distinct, Field(min_length=1)]
    cfg: Annotated[tuple[Annotated[float, Field(ge=1)], ...], ListOf, Distinct, Field(min_length=1)]
    scales: Annotated[tuple[Positive, ...], ListOf, Distinct, Field(min_length=1)]
    times: Annotated[int, Field(ge=2)]
    real_shares: Annotated[tuple[Share, ...], ListOf, Distinct, Field(min_length=1)]


class FeedbackMap(Frozen):
    """Settings of the map; meanings in params.yaml."""

    seeds: Count
    world: LongTail
    per_class: Annotated[int, Field(ge=2)]
    moved: Moved
    denoisers: Denoisers
    sampling: Sampling
    training: Classification


class Variance(Frozen):
    """Draws of every kind that variance components are measured with; meanings in params.yaml."""

    worlds: Annotated[int, Field(ge=2)]
    sets: Annotated[int, Field(ge=2)]
    classifiers: Annotated[int, Field(ge=2)]


class Params(Frozen):
    """The whole of params.yaml. The smoke block only overrides the notebooks' own cells."""

    scale: ScaleName
    smoke: Smoke
    mini: Stages
    evening: Stages
    paper: Stages
    pretrain: Pretrain
    feedback_map: FeedbackMap
    variance: Variance

    def at(self, scale: str | None) -> "Params":
        """The same at another scale; None: as it stands. Raises UserError for a scale that there is not."""
        if scale is not None and scale not in SCALES:
            raise UserError(f"No scale '{scale}': choose one of {', '.join(SCALES)}.")
        return self.model_copy(update={"scale": scale or self.scale})

    def overrides(self, stage: str) -> dict[str, Any]:
        """The parameters of a stage at the current scale, to be laid over the notebook's own cell.

        Raises UserError for a stage without parameters.
        """
        model(stage)
        values = getattr(getattr(self, self.scale), stage)
        return dict(values if self.scale == "smoke" else values.model_dump(mode="json"))


def load(path: Path) -> Params:
    """Read and check params.yaml. Raises UserError naming the file and the key."""
    resolved = Resolver(read(path), str(path)).resolve()
    checked: Params = validated(Params, resolved.plain, str(path), resolved.written)
    for scale, stage in product(SCALES, ("own_images", "own_features")):
        written = resolved.written((scale, stage, "images"))
        if written != IMAGES:
            raise UserError(
                f"{path}: '{'.'.join(written)}' is nothing that DVC follows: give the folder as "
                f"{'.'.join(IMAGES)}, which {stage} of every scale extends."
            )
    images = resolved.plain["mini"]["own_images"]["images"]
    if images.startswith("~") or images.lower().endswith(".csv"):
        raise UserError(
            f"{path}: '{'.'.join(IMAGES)}' is {images}, and DVC follows neither '~' nor the images of a CSV: "
            "give the folder with its whole path, or from the root; a CSV in it is found."
        )
    return checked


def check_stage(stage: str, values: dict[str, Any], source: str) -> None:
    """Check a stage's complete parameters. Raises UserError naming the source and the key."""
    validated(model(stage), values, source)

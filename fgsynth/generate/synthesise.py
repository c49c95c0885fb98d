"""Synthesis: prompts, conditions and seeds to 8-bit images, with the criterion before and after feedback."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from fgsynth.config.checked import Checked, checked
from fgsynth.config.schema import Count, NotNegative
from fgsynth.data.images import to_uint8
from fgsynth.generate.generator import Generator
from fgsynth.guidance.criteria import Criterion, combined
from fgsynth.guidance.feedback import Classifier, Guidance, guide
from fgsynth.guidance.samplers import ddim
from fgsynth.utils.errors import UserError
from fgsynth.utils.progress import progress


@dataclass(frozen=True)
class Feedback(Checked):
    """Classifier, criteria and settings of feedback guidance.

    classifier: of images in [-1, 1], (n, 3, h, w); criteria: by name, of several each sample draws one
    (FG table 6); n_classes: of the benchmark.
    """

    classifier: Classifier
    criteria: Mapping[str, Criterion]
    n_classes: Count
    guidance: Guidance = field(default_factory=Guidance)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.criteria:
            raise UserError("Feedback needs a criterion: give one by its name, or leave feedback out.")

    def criterion(self, seeds: Sequence[int]) -> Criterion:
        """Criterion of a batch of samples with these seeds."""
        each = list(self.criteria.values())
        return each[0] if len(each) == 1 else combined(each, seeds)


@dataclass(frozen=True)
class Plan(Checked):
    """Images to make, one entry each: n prompts, image conditions (n, ...), classes (n,) and seeds.

    Raises UserError for parts of different lengths and labels that are no whole numbers.
    """

    prompts: Sequence[str]
    image: Tensor
    label: Tensor
    seeds: Sequence[int]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.prompts) == len(self.image) == len(self.label) == len(self.seeds):
            raise UserError(
                f"{len(self.prompts)} prompts, {len(self.image)} image conditions, {len(self.label)} labels "
                f"and {len(self.seeds)} seeds: one of each per image is needed."
            )
        if self.label.is_floating_point() or self.label.dtype == torch.bool:
            raise UserError(f"Plan: labels are {self.label.dtype}: whole numbers are needed.")

    def part(self, rows: slice) -> "Plan":
        """Plan of some of the images."""
        return Plan(self.prompts[rows], self.image[rows], self.label[rows], self.seeds[rows])


@dataclass(frozen=True)
class Synthetic:
    """Images (n, h, w, 3), uint8, with the criterion before and after feedback, (n,).

    before: at x0_hat of the first guided step, before any push; after: at the finished image; NaN without
    feedback. non_finite: guided steps whose gradient was not finite, (n,). record: at x0_hat of every guided
    step, before its push, (n, guided steps).
    """

    images: Tensor
    before: Tensor
    after: Tensor
    non_finite: Tensor
    record: Tensor = field(default_factory=lambda: torch.empty(0, 0))


@checked
def synthesise(
    generator: Generator,
    plan: Plan,
    cfg: NotNegative,
    feedback: Feedback | None = None,
    *,
    batch: Count = 64,
    bar: str | None = None,
) -> Synthetic:
    """Sample images under classifier-free and feedback guidance, in batches (FG eq. 1 to 3).

    An image depends on its own entry of the plan only, not on the batch. cfg: the scale s; feedback: None for
    none; batch: images sampled together; bar: label of a progress bar over batches. Raises UserError for a
    classifier with another number of classes, labels beyond them, an image that is not finite, a batch that
    does not fit into memory and an empty plan.
    """
    if feedback is not None:
        _check_classes(generator, plan, feedback)
    starts = range(0, len(plan.seeds), batch)
    parts = []
    for start in progress(starts, bar) if bar else starts:
        part = plan.part(slice(start, start + batch))
        try:
            parts.append(_batch(generator, part, cfg, feedback))
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            raise UserError(_too_large(len(part.seeds))) from error
    if not parts:
        raise UserError("Nothing to synthesise: the plan has no entries.")
    return Synthetic(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Synthetic)))


def _batch(generator: Generator, plan: Plan, cfg: float, feedback: Feedback | None) -> Synthetic:
    n, device = len(plan.seeds), generator.device
    predict = generator.predict(generator.embed_text(plan.prompts), plan.image.to(device), cfg)
    noise = generator.noise(plan.seeds)
    nothing = torch.full((n,), torch.nan)
    if feedback is None:
        images = decoded(generator, ddim(predict, noise, generator.schedule), plan.seeds)
        none = torch.zeros(n, dtype=torch.long)
        return Synthetic(to_uint8(images), nothing, nothing, none, torch.empty(n, 0))
    label, criterion = plan.label.to(device), feedback.criterion(plan.seeds)
    guided = guide(
        predict,
        feedback.classifier,
        criterion,
        label,
        generator.schedule,
        feedback.guidance,
        generator.decode_for_guidance,
        one_by_one=generator.large,
    )
    images = decoded(generator, ddim(guided, noise, generator.schedule), plan.seeds)
    with torch.no_grad():
        after = criterion(*feedback.classifier(images), label).cpu()
    record = torch.stack(guided.values, 1).cpu() if guided.values else torch.empty(n, 0)
    before = record[:, 0] if guided.values else nothing
    return Synthetic(to_uint8(images), before, after, guided.non_finite, record)


@torch.no_grad()
def decoded(generator: Generator, z: Tensor, seeds: Sequence[int]) -> Tensor:
    """Decode finished latents to (n, 3, h, w) in [-1, 1]; UserError for an image that is not finite."""
    x = generator.decode(z)
    bad = [seed for seed, one in zip(seeds, x, strict=True) if not torch.isfinite(one).all()]
    if bad:
        raise UserError(
            f"The image of seed {bad[0]} is not finite: run the denoiser in float32 or bfloat16, or lower "
            "the classifier-free and feedback scales."
        )
    return x.clamp(-1, 1)


@torch.no_grad()
def _check_classes(generator: Generator, plan: Plan, feedback: Feedback) -> None:
    if len(off := plan.label[(plan.label < 0) | (plan.label >= feedback.n_classes)]):
        raise UserError(f"Plan: label {int(off[0])} is no class of {feedback.n_classes}, counted from 0.")
    side = generator.side
    logits, _ = feedback.classifier(torch.zeros(1, 3, side, side, device=generator.device))
    if logits.shape[1] != feedback.n_classes:
        raise UserError(
            f"The classifier has {logits.shape[1]} classes, the benchmark {feedback.n_classes}: guide "
            "with a classifier trained on the benchmark's own classes."
        )


def _out_of_memory(error: RuntimeError) -> bool:
    signs = ("can't allocate memory", "STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in signs)


def _too_large(batch: int) -> str:
    if batch == 1:
        return "One image does not fit into memory: take half precision, cheap guidance or a larger machine."
    return f"A batch of {batch} images does not fit into memory: set batch to {batch // 2}."

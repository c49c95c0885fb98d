"""Feedback guidance of a diffusers pipeline that is loaded already, in one call."""

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from fgsynth.config.checked import checked
from fgsynth.config.schema import Count, NotNegative
from fgsynth.data.images import ImageLike
from fgsynth.generate.dropout import NO_DROPOUT, Dropout
from fgsynth.generate.generator import Generator
from fgsynth.generate.pipelines import family_of, with_redux
from fgsynth.generate.resize import at_resolution
from fgsynth.generate.synthesise import Feedback, Plan, Synthetic, synthesise
from fgsynth.guidance.criteria import Criterion
from fgsynth.guidance.feedback import Guidance
from fgsynth.utils.errors import UserError


@checked
def guided(
    pipe: Any,
    classifier: Any,
    criterion: Criterion,
    prompts: Sequence[str],
    labels: Sequence[int],
    *,
    images: Sequence[ImageLike] | None = None,
    dropout: Dropout = NO_DROPOUT,
    redux: Any = None,
    guidance: Guidance | None = None,
    cfg: NotNegative = 3.0,
    n_steps: Count = 30,
    seeds: Sequence[int] | None = None,
    side: Count | None = None,
    classifier_side: Count | None = None,
    tiny: AutoencoderTiny | None = None,
    batch: Count = 4,
) -> Synthetic:
    """Sample one image per prompt by a loaded pipeline, guided by a classifier's criterion (FG eq. 3).

    Where the pipeline's networks are, the classifier must be; both are left frozen, all else as it was.

    pipe: of any family of `pipelines.FAMILIES`, with its IP-Adapter, if any, loaded. classifier: of images in
    [-1, 1], (n, 3, h, w), to logits (n, c), or to logits and embedding. labels: classes, one per prompt.
    images, dropout: real images as conditions, one per prompt, and dropout of their embeddings (FG 3.2).
    redux: a loaded FluxPriorReduxPipeline, by which FLUX.1 takes images. guidance: None for its defaults,
    with the cheap gradient where images are large. seeds: None for 0, 1, ... side, classifier_side: in
    pixels, of images and of what the classifier sees; None for the model's own, and for the whole image.
    tiny: a small decoder that guidance looks through, such as TAESDXL. Raises UserError for another kind of
    pipeline, parts that do not fit, and as `synthesise`.
    """
    if images is None and dropout.p:
        raise UserError("Dropout has no effect without images: give one image per prompt, or leave it out.")
    family_of(pipe)
    own = copy(pipe)
    if redux is not None:
        with_redux(own, redux)
    precision = pipe.vae.dtype
    try:
        device = str(pipe.vae.device)
        generator = Generator.of(own, n_steps, device=device, tiny=tiny, side=side)
        seeds = range(len(prompts)) if seeds is None else seeds
        condition = generator.no_image(len(prompts))
        if images is not None:
            condition = generator.embed_image(images, seeds, dropout)
        look = _with_embedding(classifier)
        look = look if classifier_side is None else at_resolution(look, classifier_side)
        pixels = torch.zeros(1, 3, generator.side, generator.side, device=device)
        settings = guidance or Guidance(through_network=not generator.large)
        feedback = Feedback(look, {"criterion": criterion}, look(pixels)[0].shape[1], settings)
        plan = Plan(prompts, condition, torch.as_tensor(labels), seeds)
        return synthesise(generator, plan, cfg, feedback, batch=batch)
    finally:
        nn.Module.to(pipe.vae, precision)


def _with_embedding(classifier: Any) -> Any:
    """A classifier of logits alone has them for embedding."""

    def classify(x: Tensor) -> tuple[Tensor, Tensor]:
        out = classifier(x)
        return out if isinstance(out, tuple) else (out, out)

    if isinstance(classifier, nn.Module):
        classifier.requires_grad_(False).eval()
    return classify

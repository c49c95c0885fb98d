"""The bridge between features and images: unCLIP decodes features, its CLIP reads images."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fgsynth.data.images import ImageLike
from fgsynth.generate.generator import Generator
from fgsynth.generate.synthesise import Plan, synthesise
from fgsynth.utils.errors import UserError


def decode_features(
    generator: Generator,
    features: Tensor,
    seeds: Sequence[int],
    prompts: Sequence[str] | None = None,
    *,
    inverse: Callable[[Tensor], Tensor] | None = None,
    cfg: float = 3.0,
    noise_level: int = 0,
    batch: int = 64,
) -> Tensor:
    """Decoding of CLIP features by unCLIP: an image each by DDIM, 8-bit (n, h, w, 3) (Ramesh et al. 2022).

    features (n, width) are the generator's image condition in place of an image's embedding. seeds: one
    per image, for noise; prompts: a text each, None is no text. inverse: undoes what was done to CLIP's
    embeddings ahead of sampling (standardising, unit length), as unCLIP takes them at their own scale.
    cfg: classifier-free scale; the default is the one the mini unCLIP's model card chose with text and image.
    noise_level: of the condition. An image depends on its own row, seed and prompt only.
    Raises UserError for no features, and for features of another width, that are not finite, or of another
    number than the seeds.
    """
    if not len(features):
        raise UserError("There are no features to decode: give at least one.")
    features = features if inverse is None else inverse(features)
    width = generator.pipe.image_encoder.config.projection_dim
    if features.ndim != 2 or features.shape[1] != width:
        raise UserError(
            f"Features of the shape {tuple(features.shape)} cannot be decoded: the generator's CLIP gives "
            f"(n, {width}); take features of its own image encoder."
        )
    if len(features) != len(seeds):
        raise UserError(f"{len(features)} features and {len(seeds)} seeds: give one seed per feature.")
    bad = ~features.isfinite().all(1)
    if bad.any():
        raise UserError(f"Feature {int(bad.nonzero()[0])} is not finite: leave it out or sample it anew.")
    texts = [""] * len(features) if prompts is None else prompts
    image = generator.condition_image(features, seeds, noise_level=noise_level)
    # No feedback looks at the label.
    label = torch.zeros(len(features), dtype=torch.long)
    return synthesise(generator, Plan(texts, image, label, seeds), cfg, batch=batch).images


def image_features(generator: Generator, images: Sequence[ImageLike] | Tensor) -> Tensor:
    """CLIP embedding of images, as the generator's own image encoder sees them: float32 (n, width).

    images: 8-bit (n, h, w, 3), or anything that `fgsynth.data.images.as_rgb` takes.
    Raises UserError for no images, and for one that cannot be read.
    """
    if not len(images):
        raise UserError("There are no images to embed: give at least one.")
    return generator.clip_embedding(list(images)).float().cpu()

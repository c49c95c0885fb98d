"""A classifier at its own resolution, whatever the size of the generator's images."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fgsynth.guidance.feedback import Classifier
from fgsynth.utils.errors import UserError


def at_resolution(classifier: Classifier, side: int) -> Classifier:
    """A classifier that sees images (n, 3, h, w) of any size at its own, side x side: antialiased bilinear.

    Differentiable, and nothing at all for images of that size. The whole image is seen, as all of it will
    be trained on; a centre crop would leave its border without feedback. The papers' released sampler has no
    resize: it shows 512 pixels to a network of 224. Raises UserError for a side below 1.
    """
    if side < 1:
        raise UserError(f"A classifier's side of {side} pixels: give the size that it was trained at.")

    def resized(x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[-2:] != (side, side):
            x = interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)
        return classifier(x)

    return resized


def shrunk(images: Tensor, side: int | None) -> Tensor:
    """Images (n, h, w, 3) uint8 at side x side, antialiased bilinear, as a classifier would see them.

    None, and images of that size, stay as they are.
    """
    if side is None or images.shape[1:3] == (side, side):
        return images
    x = interpolate(images.permute(0, 3, 1, 2).float(), (side, side), mode="bilinear", antialias=True)
    return x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

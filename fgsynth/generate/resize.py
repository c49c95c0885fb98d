"""A classifier at its own resolution, whatever the size of the generator's images."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fgsynth.config.checked import checked
from fgsynth.config.schema import Count
from fgsynth.guidance.feedback import Classifier


@checked
def at_resolution(classifier: Classifier, side: Count) -> Classifier:
    """Resize a classifier's input (n, 3, h, w) to side x side, antialiased bilinear, differentiable.

    Images of that size pass unchanged. The whole image is resized, as all of it will be trained on; a centre
    crop would leave its border without feedback. The papers' released sampler has no resize: its network of
    224 pixels gets 512. Raises UserError for a side below 1.
    """

    def classify(x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[-2:] != (side, side):
            x = interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)
        return classifier(x)

    return classify


def resized(images: Tensor, side: int | None) -> Tensor:
    """Resize images (n, h, w, 3) uint8 to side x side, antialiased bilinear; None leaves them unchanged."""
    if side is None or images.shape[1:3] == (side, side):
        return images
    x = interpolate(images.permute(0, 3, 1, 2).float(), (side, side), mode="bilinear", antialias=True)
    return x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

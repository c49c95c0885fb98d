"""A classifier at its own resolution, whatever the size of the generator's pictures."""

from torch import Tensor
from torch.nn.functional import interpolate

from fgsynth.errors import UserError
from fgsynth.guidance import Classifier


def at_resolution(classifier: Classifier, side: int) -> Classifier:
    """A classifier that sees pictures (n, 3, h, w) of any size at its own, side x side: antialiased bilinear.

    Differentiable, and nothing at all for pictures of that size. The whole picture is seen, as all of it will
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

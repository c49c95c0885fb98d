"""Training augmentations of the papers: crop, flip, colour jitter, blur, grey; repeatable per batch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from fgsynth.utils.errors import UserError

NAMES = ("crop", "flip", "jitter", "blur", "grey")
"""In the order in which they are applied, whatever the order given."""


def augment(
    images: Tensor | Sequence[Tensor], names: Sequence[str], seed: int, side: int | None = None
) -> Tensor:
    """Random views of images by torchvision's transforms (FG 4.1 names them; strengths are our choice).

    images: uint8, (n, h, w, 3) or a sequence of (h, w, 3). Returns uint8 (n, h, w, 3).
    Without `side` all images have one size and keep it: "crop" pads by an eighth with the border's
    colours and cuts. With it (images from files) "crop" is Inception's random resized crop to
    side x side; without "crop" the view is `plain`'s. "flip": left-right, probability 1/2. "jitter":
    brightness, contrast, saturation by 0.4. "blur": Gaussian, probability 1/2. "grey": probability 0.2.
    The seed decides the views of the batch; torch's global generator is left as it was.
    names: of NAMES (`Recipe` checks them). Raises UserError for images of several sizes without a side.
    """
    with torch.random.fork_rng(devices=[]):
        # Of the CPU alone: torch.manual_seed would also reset the accelerators' generators.
        torch.default_generator.manual_seed(seed)
        if side is not None:
            return _map([*_geometry(names, side), *_colours(names, side)], images)
        x = _shift(_together(images), "crop" in names, "flip" in names)
        each = _colours(names, min(x.shape[1:3]))
        return _map(each, x) if each else x


def plain(images: Tensor | Sequence[Tensor], side: int | None = None) -> Tensor:
    """The evaluation's view: as it is, or with `side` the centre, 7/8 of the shorter edge (224 of 256)."""
    if side is None:
        return _together(images)
    return _map(_geometry((), side), images)


def _geometry(names: Sequence[str], side: int) -> list[nn.Module]:
    cut = [v2.RandomResizedCrop(side)] if "crop" in names else [v2.Resize(side * 8 // 7), v2.CenterCrop(side)]
    return [*cut, v2.RandomHorizontalFlip()] if "flip" in names else cut


def _colours(names: Sequence[str], side: int) -> list[nn.Module]:
    # SimCLR's blur: a tenth of the side wide, deviation up to 2 at 224 pixels, but one that shows at 32.
    width, deviation = max(3, side // 10 | 1), max(1.0, side / 112)
    transforms = {
        "jitter": v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
        "blur": v2.RandomApply([v2.GaussianBlur(width, (0.1, deviation))], 0.5),
        "grey": v2.RandomGrayscale(0.2),
    }
    return [transform for name, transform in transforms.items() if name in names]


def _shift(x: Tensor, crop: bool, flip: bool) -> Tensor:
    """Crop with padding and flip of a whole batch (n, h, w, 3), one draw per image.

    One gather of pixels: torchvision draws once per call, and its loop over 64 images of 32 x 32
    takes an eighth of the time of an update (2.4 ms; this takes 0.3 ms).
    """
    if not (crop or flip):
        return x
    n, h, w, channels = x.shape
    row, column = torch.arange(h).expand(n, h), torch.arange(w).expand(n, w)
    if crop:
        row = (row + torch.randint(-(h // 8), h // 8 + 1, (n, 1))).clamp(0, h - 1)
        column = (column + torch.randint(-(w // 8), w // 8 + 1, (n, 1))).clamp(0, w - 1)
    if flip:
        column = torch.where(torch.rand(n, 1) < 0.5, column.flip(1), column)
    pixel = (row[:, :, None] * w + column[:, None, :]).reshape(n, h * w, 1).expand(-1, -1, channels)
    return x.reshape(n, h * w, channels).gather(1, pixel).reshape(x.shape)


def _map(transforms: list[nn.Module], images: Tensor | Sequence[Tensor]) -> Tensor:
    """Transforms of each image by itself; torchvision takes channels first."""
    transform = v2.Compose(transforms)
    views = [transform(image.permute(2, 0, 1)) for image in images]
    return torch.stack(views).permute(0, 2, 3, 1).contiguous()


def _together(images: Tensor | Sequence[Tensor]) -> Tensor:
    if isinstance(images, Tensor):
        return images
    sizes = {tuple(image.shape) for image in images}
    if len(sizes) > 1:
        raise UserError(
            f"Images of several sizes ({sorted(sizes)[:2]} ...): set side to the network's input."
        )
    return torch.stack(list(images))

"""Images at the door: whatever a file or an array holds becomes 8-bit RGB, or a sentence says why not."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from fgsynth.utils.errors import UserError

ImageLike = Image.Image | NDArray[np.uint8] | Tensor | Path | str


def as_rgb(image: ImageLike, name: str = "the image") -> Image.Image:
    """An image as 8-bit RGB, upright.

    Takes a file, a PIL image of any mode, or a uint8 array (h, w, 3) or (h, w). Grey becomes three equal
    channels, transparency white, 16 bit are scaled to 8, and a camera's orientation mark is obeyed.
    Raises UserError, with the name, for what cannot be read or has no area.
    """
    if isinstance(image, Path | str):
        return as_rgb(_open(Path(image)), str(image))
    if isinstance(image, Tensor):
        image = image.cpu().numpy()
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
            raise UserError(
                f"{name} is an array of {image.dtype} and shape {image.shape}: a uint8 array of shape "
                "(height, width, 3) or (height, width) is needed."
            )
        image = Image.fromarray(image)
    if 0 in image.size:
        raise UserError(f"{name} has no pixels (size {image.size}).")
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return _from_deep(image, name)
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def as_rgb_all(images: Sequence[ImageLike], first: int = 0) -> list[Image.Image]:
    """`as_rgb` of each; an error names the image's number, counted from `first`."""
    return [as_rgb(image, f"Image {i}") for i, image in enumerate(images, first)]


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        raise UserError(f"There is no image at {path}: check the path.")
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} is not a readable image ({error}): replace or remove it.") from error


def _from_deep(image: Image.Image, name: str) -> Image.Image:
    """16-bit, 32-bit and float grey; the largest value decides the scale."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 65535:
        raise UserError(
            f"{name} has values outside 0 to 65535 (mode {image.mode}): convert it to 8 or 16 bit."
        )
    if image.mode == "F" and values.max() <= 1:
        values = values * 255
    elif image.mode.startswith("I;16") or values.max() > 255:
        values = values / 257
    return Image.fromarray(np.round(values).astype(np.uint8)).convert("RGB")


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1], (n, 3, h, w), as 8-bit (n, h, w, 3) on the CPU."""
    return ((x.cpu() + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def from_uint8(images: Tensor) -> Tensor:
    """8-bit images (n, h, w, 3) as networks take them, float32 (n, 3, h, w) in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1

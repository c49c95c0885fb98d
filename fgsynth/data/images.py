"""Pictures at the door: whatever a file or an array holds becomes 8-bit RGB, or a sentence says why not."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from fgsynth.utils.errors import UserError

Picture = Image.Image | NDArray[np.uint8] | Tensor | Path | str


def as_rgb(picture: Picture, name: str = "the picture") -> Image.Image:
    """A picture as 8-bit RGB, upright.

    Takes a file, a PIL image of any mode, or a uint8 array (h, w, 3) or (h, w). Grey becomes three equal
    channels, transparency white, 16 bit are scaled to 8, and a camera's orientation mark is obeyed.
    Raises UserError, with the name, for what cannot be read or has no area.
    """
    if isinstance(picture, Path | str):
        return as_rgb(_open(Path(picture)), str(picture))
    if isinstance(picture, Tensor):
        picture = picture.cpu().numpy()
    if isinstance(picture, np.ndarray):
        if (
            picture.dtype != np.uint8
            or picture.ndim not in (2, 3)
            or (picture.ndim == 3 and picture.shape[2] != 3)
        ):
            raise UserError(
                f"{name} is an array of {picture.dtype} and shape {picture.shape}: a uint8 array of shape "
                "(height, width, 3) or (height, width) is needed."
            )
        picture = Image.fromarray(picture)
    if 0 in picture.size:
        raise UserError(f"{name} has no pixels (size {picture.size}).")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return _from_deep(picture, name)
    if picture.mode == "La":
        picture = picture.convert("LA")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def as_rgb_all(pictures: Sequence[Picture], first: int = 0) -> list[Image.Image]:
    """`as_rgb` of each; an error names the picture's number, counted from `first`."""
    return [as_rgb(picture, f"Picture {i}") for i, picture in enumerate(pictures, first)]


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        raise UserError(f"There is no picture at {path}: check the path.")
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} is not a readable picture ({error}): replace or remove it.") from error


def _from_deep(picture: Image.Image, name: str) -> Image.Image:
    """16-bit, 32-bit and float grey; the scale is told by the largest value."""
    values = np.asarray(picture, dtype=np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 65535:
        raise UserError(
            f"{name} has values outside 0 to 65535 (mode {picture.mode}): convert it to 8 or 16 bit."
        )
    if picture.mode == "F" and values.max() <= 1:
        values = values * 255
    elif picture.mode.startswith("I;16") or values.max() > 255:
        values = values / 257
    return Image.fromarray(np.round(values).astype(np.uint8)).convert("RGB")


def to_uint8(x: Tensor) -> Tensor:
    """Pictures in [-1, 1], (n, 3, h, w), as 8-bit (n, h, w, 3) on the CPU."""
    return ((x.cpu() + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def from_uint8(pictures: Tensor) -> Tensor:
    """8-bit pictures (n, h, w, 3) as networks take them, float32 (n, 3, h, w) in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1

"""Image files one by one: readable to the end, kind of colours, digest of the bytes, difference hash."""

import hashlib
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from fgsynth.data.images import as_rgb
from fgsynth.utils.cache import THREADS
from fgsynth.utils.progress import progress

KINDS = {"L": "grey", "1": "black and white", "P": "palette"}


@dataclass(frozen=True)
class Examined:
    """What one file is.

    fault: why it cannot be read, "" if it can; only then kind ("" for plain RGB) and dhash have a meaning.
    sha256: of the bytes, b"" if there are none to be had. dhash: see `difference_hash`.
    """

    fault: str
    kind: str = ""
    sha256: bytes = b""
    dhash: tuple[int, int] = (0, 0)


def examine(path: Path) -> Examined:
    """Read a file whole, verify it, and decode it to the last pixel, within PIL's own limit of pixels."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return Examined(f"cannot be opened ({error.strerror})")
    sha256 = hashlib.sha256(data).digest()
    try:
        # `verify` leaves an image that cannot be decoded any more, and misses the missing end of a JPEG.
        with Image.open(BytesIO(data)) as image:
            image.verify()
        with Image.open(BytesIO(data)) as image:
            image.load()
            return Examined("", _kind(image), sha256, difference_hash(as_rgb(image)))
    except UnidentifiedImageError:
        return Examined("is no image that PIL knows", sha256=sha256)
    except Exception as error:  # Damaged files make PIL's readers raise nearly anything.
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        return Examined(f"is damaged or refused ({reason})", sha256=sha256)


def examine_all(paths: Sequence[Path]) -> list[Examined]:
    """`examine` of every file, in order, by threads and with a progress bar."""
    with warnings.catch_warnings(), ThreadPoolExecutor(THREADS) as pool:
        # Up to twice its limit PIL decodes, and warns at every image.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        work = [pool.submit(examine, path) for path in paths]
        try:
            return [each.result() for each in progress(work, "reading images")]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def difference_hash(image: Image.Image) -> tuple[int, int]:
    """Difference hash (dHash) by rows and by columns, 64 bits each: is a grey mean darker than the next.

    Of 8 x 9 means each with its right neighbour, of 9 x 8 with the lower one; 0 where nothing gets brighter.
    Both must agree: one direction alone takes different photographs for copies.
    """
    grey = image.convert("L")
    across = np.asarray(grey.resize((9, 8), Image.Resampling.BOX))
    down = np.asarray(grey.resize((8, 9), Image.Resampling.BOX))
    brighter = (across[:, :-1] < across[:, 1:], down[:-1] < down[1:])
    rows, columns = (int.from_bytes(np.packbits(b).tobytes(), "big") for b in brighter)
    return rows, columns


def _kind(image: Image.Image) -> str:
    if "transparency" in image.info or "A" in image.getbands() or "a" in image.getbands():
        return "with alpha"
    if image.mode.startswith(("I", "F")):
        return "16 bits or more"
    return "" if image.mode == "RGB" else KINDS.get(image.mode, image.mode)

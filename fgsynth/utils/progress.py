"""Progress bars: in a terminal and in JupyterLab; silent in pipelines, logs and tests."""

import os
import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")
QUIET = "FGSYNTH_QUIET"
"""Environment variable that the pipeline sets for its kernels, as nobody is watching them."""


def progress(items: Iterable[T], desc: str) -> Iterable[T]:
    """Iterate with a progress bar where somebody can see one.

    A JupyterLab kernel has no terminal, so `isatty` alone would hide the bar from a reader.
    """
    watched = "ipykernel" in sys.modules or sys.stderr.isatty()
    return tqdm(items, desc=desc, disable=not watched or QUIET in os.environ, leave=False)

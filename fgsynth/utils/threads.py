"""Threads for problems of small matrices, where waiting for a second thread costs more than it computes.

Independent small problems go to several processes of one thread each instead: `fgsynth.utils.processes`.
"""

import contextlib
import ctypes
from collections.abc import Iterator

import torch

SMALL = 2e8
"""Multiplications of one matrix product below which one thread is faster (8 times at 4e6, two cores)."""


@contextlib.contextmanager
def threads_for(multiplications: float) -> Iterator[None]:
    """PyTorch on one thread within the block if its products are small; on as many as before after it."""
    with one_thread() if multiplications < SMALL else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread within the block, whose sums then are the same on any number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next allocation, instead of giving it back each time.

    An update of a small network frees and takes tens of megabytes, and every page of them is a fault: a fifth
    of the time of a classifier's training on two cores. Memory stays at its peak. Only glibc knows how.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        # Some versions take no more than 32 MiB.
        if not library.mallopt(_MMAP_THRESHOLD, 2**30):
            library.mallopt(_MMAP_THRESHOLD, 2**25)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""

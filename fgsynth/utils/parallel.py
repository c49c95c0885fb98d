"""Parallel work: processes of one thread each, and when one thread is faster than two."""

import contextlib
import ctypes
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from joblib import Parallel, delayed

from fgsynth.utils.progress import QUIET, progress

T = TypeVar("T")
R = TypeVar("R")
# joblib replaces a process whose memory has grown, between two pieces of work; there is nothing to act on.
warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
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
    of the time of a classifier's training on two cores. Memory stays at its peak. Of glibc only.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        # Some versions take no more than 32 MiB.
        if not library.mallopt(_MMAP_THRESHOLD, 2**30):
            library.mallopt(_MMAP_THRESHOLD, 2**25)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


def memory() -> int:
    """Memory of this machine, in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def spread(
    function: Callable[[T], R], items: Iterable[T], bar: str, *, processes: int | None = None
) -> list[R]:
    """`function` of every item, in their order, by as many processes as there are cores.

    One thread each, here as there, so that the number of processes does not change a bit of the results.
    processes: 1 does it all here, which is faster for little work, as starting others takes seconds.
    Raises what `function` raises.
    """
    todo = list(items)
    count = min(processes or os.cpu_count() or 1, len(todo))
    if count < 2:
        return [_alone(function, item) for item in progress(todo, bar)]
    pool = Parallel(n_jobs=count, return_as="generator", pre_dispatch="n_jobs")
    done = pool(delayed(_quietly)(function, item) for item in todo)
    return [result for _, result in zip(progress(range(len(todo)), bar), done, strict=True)]


def _alone(function: Callable[[T], R], item: T) -> R:
    keep_freed_memory()
    with one_thread():
        return function(item)


def _quietly(function: Callable[[T], R], item: T) -> R:
    """In another process: its bars would be written over one another."""
    os.environ[QUIET] = "1"
    return _alone(function, item)

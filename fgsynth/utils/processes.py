"""Independent work in several processes of one thread each: faster than one process of several threads."""

import os
import warnings
from collections.abc import Callable, Iterable
from typing import TypeVar

from joblib import Parallel, delayed

from fgsynth.utils.progress import QUIET, progress
from fgsynth.utils.threads import keep_freed_memory, one_thread

T = TypeVar("T")
R = TypeVar("R")
# joblib replaces a process whose memory has grown, between two pieces of work; there is nothing to act on.
warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)


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

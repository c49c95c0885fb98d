"""Threads for problems of small matrices, where waiting for a second thread costs more than it computes.

Independent small problems go to several processes of one thread each instead: `fgsynth.processes`.
"""

import contextlib
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

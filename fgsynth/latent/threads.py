"""Threads for problems of small matrices, where waiting for a second thread costs more than it computes."""

import contextlib
from collections.abc import Iterator

import torch

SMALL = 2e8
"""Multiplications of one matrix product below which one thread is faster (8 times at 4e6, two cores)."""


@contextlib.contextmanager
def threads_for(multiplications: float) -> Iterator[None]:
    """PyTorch on one thread within the block if its products are small; on as many as before after it."""
    before = torch.get_num_threads()
    if multiplications < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

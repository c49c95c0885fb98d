"""Quick matrix products: the processor's full speed, for what is checked in single precision later."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def quick_products() -> Iterator[None]:
    """Within the block, products of float32 matrices may round their factors (not their sums) to bfloat16.

    PyTorch then gives them to oneDNN instead of MKL. With AMX they are made in bfloat16; with AVX-512 alone
    in float32, twice as fast as MKL where the processor is not Intel's. Elsewhere nothing changes.
    """
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before

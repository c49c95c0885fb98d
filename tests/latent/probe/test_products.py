import pytest
import torch

from fgsynth.latent.probe.products import quick_products
from fgsynth.utils.seeds import generator


def precision():
    return torch.backends.mkldnn.matmul.fp32_precision


def test_quick_products_are_close_and_only_within_the_block():
    g = generator("products")
    a, b = torch.randn(300, 80, generator=g), torch.randn(80, 50, generator=g)
    exact, before = a @ b, precision()
    with quick_products():
        assert precision() == "bf16"
        quick = a @ b
    assert precision() == before
    assert quick.dtype == torch.float32
    # A factor in bfloat16 has 8 bits; float32 is at least as close.
    assert float((quick - exact).norm() / exact.norm()) < 2**-7
    assert torch.equal(a @ b, exact)


def test_after_an_error_products_are_exact_again():
    before = precision()
    with pytest.raises(ZeroDivisionError), quick_products():
        1 / 0  # noqa: B018
    assert precision() == before

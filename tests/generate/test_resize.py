import pytest
import torch

from fgsynth.data.images import from_uint8
from fgsynth.generate.resize import at_resolution, resized
from fgsynth.utils.errors import UserError


def look(x):
    return x.flatten(1), x.flatten(1)


@pytest.mark.parametrize("size", [(64, 64), (48, 64), (16, 16)])
def test_any_size_becomes_the_classifiers_own(size):
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    logits, _ = at_resolution(look, 32)(x)
    assert logits.shape == (2, 3 * 32 * 32)
    assert logits.abs().max() <= 1
    torch.testing.assert_close(logits.mean(), x.mean(), atol=0.01, rtol=0)


def test_images_of_that_size_are_not_touched():
    x = torch.rand(2, 3, 32, 32)
    assert at_resolution(lambda x: (x, x), 32)(x)[0] is x


def test_every_pixel_has_its_part_in_the_gradient():
    x = torch.zeros(1, 3, 96, 96, requires_grad=True)
    (gradient,) = torch.autograd.grad(at_resolution(look, 32)(x)[0].sum(), x)
    # Without antialiasing two of three pixels would count for nothing.
    assert (gradient > 0).all()


def test_a_classifier_has_a_size():
    with pytest.raises(UserError, match="'side' is 0"):
        at_resolution(look, 0)


def test_images_are_kept_as_a_classifier_sees_them():
    drawn = torch.randint(256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    kept = resized(drawn, 32)
    assert (kept.dtype, kept.shape) == (torch.uint8, (2, 32, 32, 3))
    seen = at_resolution(lambda x: (x, x), 32)(from_uint8(drawn))[0]
    assert (from_uint8(kept) - seen).abs().max() <= 1 / 255 + 1e-6
    assert resized(drawn, 64) is drawn
    assert resized(drawn, None) is drawn

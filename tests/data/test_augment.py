import pytest
import torch

from fgsynth.data.augment import NAMES, augment, plain
from fgsynth.utils.errors import UserError


def noise(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


X = noise(40, 32, 32, 3)


@pytest.mark.parametrize("side", [None, 24])
def test_the_seed_decides_the_views_and_the_global_generator_is_untouched(side):
    state = torch.get_rng_state()
    first, again, other = (augment(X, NAMES, seed, side) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.dtype == torch.uint8
    assert first.shape == (40, side or 32, side or 32, 3)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_names_change_nothing():
    assert torch.equal(augment(X, (), 0), X)
    assert torch.equal(plain(X), X)


def test_flips_are_whole_and_about_every_second():
    y = augment(X, ("flip",), 0)
    kept = (y == X).flatten(1).all(1)
    assert ((y == X.flip(2)).flatten(1).all(1) == ~kept).all()
    assert 8 < kept.sum() < 32


def test_a_crop_is_a_shift_that_repeats_the_border():
    # Each pixel says where it was: row in the first channel, column in the second.
    where = torch.stack(
        [*torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij"), torch.zeros(32, 32)], -1
    )
    y = augment(where.to(torch.uint8).expand(60, -1, -1, -1), ("crop",), 0).long()
    shift = y[:, 16, 16, :2] - 16
    assert (shift.amin(0) == -4).all()
    assert (shift.amax(0) == 4).all()
    for one, (dy, dx) in zip(y, shift, strict=True):
        assert torch.equal(one[:, 0, 0], (torch.arange(32) + dy).clamp(0, 31))
        assert torch.equal(one[0, :, 1], (torch.arange(32) + dx).clamp(0, 31))


@pytest.mark.parametrize("name", ["jitter", "blur", "grey"])
def test_colours_differ_between_the_images_of_a_batch(name):
    y = augment(X[:1].expand(30, -1, -1, -1), (name,), 0)
    assert len({one.numpy().tobytes() for one in y}) >= 2


def test_grey_is_grey_and_for_about_a_fifth():
    y = augment(noise(200, 8, 8, 3), ("grey",), 0)
    grey = ((y[..., 0] == y[..., 1]) & (y[..., 1] == y[..., 2])).flatten(1).all(1)
    assert 20 < grey.sum() < 60


def test_images_of_several_sizes_need_a_side():
    several = [noise(40, 60, 3), noise(30, 30, 3)]
    assert augment(several, ("crop", "flip"), 0, side=16).shape == (2, 16, 16, 3)
    assert augment(several, (), 0, side=16).equal(plain(several, side=16))
    with pytest.raises(UserError, match="set side to the network's input"):
        augment(several, ("flip",), 0)


def test_the_plain_view_with_a_side_is_the_centre():
    x = torch.zeros(1, 64, 128, 3, dtype=torch.uint8)
    x[:, :, 48:80] = 255
    assert (plain(x, side=14)[0, 7, 5:9] > 200).all()
    assert (plain(x, side=14)[0, 7, [0, 13]] == 0).all()

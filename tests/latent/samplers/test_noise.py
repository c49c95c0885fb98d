import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fgsynth.latent.samplers import noise
from fgsynth.utils.errors import UserError

KINDS = {
    "normal": lambda y, start, stop, seed=5: noise.normal("test", seed, y, start, stop, 3),
    "uniform": lambda y, start, stop, seed=5: noise.uniform("test", seed, y, start, stop, 3),
    "integers": lambda y, start, stop, seed=5: noise.integers("test", seed, y, start, stop, 1000),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 600), n=st.integers(0, 600))
def test_a_range_is_a_cut_out_of_one_table(kind, start, n):
    part = KINDS[kind](2, start, start + n)
    assert torch.equal(part, KINDS[kind](2, 0, 1200)[start : start + n])


@pytest.mark.parametrize("kind", KINDS)
def test_classes_seeds_and_chunks_differ(kind):
    draw = KINDS[kind]
    first = draw(2, 0, 256)
    assert not torch.equal(first, draw(3, 0, 256))
    assert not torch.equal(first, draw(2, 0, 256, seed=6))
    assert not torch.equal(first, draw(2, 256, 512))


def test_distributions_are_what_they_are_called():
    normal, uniform = noise.normal("n", 0, 0, 0, 20_000, 2), noise.uniform("u", 0, 0, 0, 20_000, 2)
    assert normal.mean().abs() < 0.02
    assert (normal.std() - 1).abs() < 0.02
    assert 0 <= uniform.min() < 0.001 < 0.999 < uniform.max() < 1
    assert (uniform.mean() - 0.5).abs() < 0.01
    drawn = noise.integers("i", 0, 0, 0, 20_000, 4).bincount()
    assert len(drawn) == 4
    assert (drawn - 5000).abs().max() < 300


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2)])
def test_a_range_that_is_none_is_refused(start, stop):
    with pytest.raises(UserError, match=f"Rows {start} to {stop}"):
        noise.normal("n", 0, 0, start, stop, 2)

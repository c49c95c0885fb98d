import torch
from hypothesis import given
from hypothesis import strategies as st

from fgsynth.utils.seeds import noise, stable_seed


def test_a_seed_is_the_same_in_every_process():
    assert stable_seed(0, "toy", 3) == 6975044911877212621


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_different_parts_differ(a, b):
    assert (stable_seed(*a) == stable_seed(*b)) == (a == b)


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=6))
def test_noise_of_a_sample_does_not_depend_on_its_batch(seeds):
    together = noise(seeds, (2, 3))
    alone = torch.cat([noise([s], (2, 3)) for s in seeds])
    assert torch.equal(together, alone)
    assert noise([], (2, 3)).shape == (0, 2, 3)

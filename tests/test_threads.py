import pytest
import torch

from fgsynth.threads import SMALL, threads_for


@pytest.fixture
def two():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_small_products_run_on_one_thread_and_large_ones_on_all(two):
    with threads_for(SMALL / 2):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with threads_for(2 * SMALL):
        assert torch.get_num_threads() == 2


def test_after_an_error_the_threads_are_back(two):
    with pytest.raises(ZeroDivisionError), threads_for(1):
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == 2

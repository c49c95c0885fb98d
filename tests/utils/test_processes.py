import os

import pytest
import torch

from fgsynth.utils.errors import UserError
from fgsynth.utils.processes import spread


def described(item):
    return item, os.getpid(), torch.get_num_threads(), os.environ.get("FGSYNTH_QUIET")


def test_results_are_in_order_and_made_on_one_thread_each_in_other_processes():
    made = spread(described, range(5), "items", processes=2)
    assert [item for item, *_ in made] == [0, 1, 2, 3, 4]
    assert os.getpid() not in {pid for _, pid, *_ in made}
    assert {(threads, quiet) for *_, threads, quiet in made} == {(1, "1")}


def test_little_work_is_done_here_on_one_thread_too():
    before = torch.get_num_threads()
    assert spread(described, ["only"], "items")[0][1:3] == (os.getpid(), 1)
    assert {pid for _, pid, *_ in spread(described, range(3), "items", processes=1)} == {os.getpid()}
    assert torch.get_num_threads() == before


def test_nothing_to_do_is_done():
    assert spread(described, [], "items") == []


def refuses_the_second(item):
    if item == 1:
        raise UserError(f"Item {item} is wrong: leave it out.")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_mistake_in_another_process_is_the_same_sentence(processes):
    with pytest.raises(UserError, match="Item 1 is wrong: leave it out"):
        spread(refuses_the_second, range(2), "items", processes=processes)

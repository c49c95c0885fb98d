import os
import platform
import subprocess
import sys

import pytest
import torch

from fgsynth.utils.errors import UserError
from fgsynth.utils.parallel import SMALL, spread, threads_for


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


FAULTS = """
import resource, torch
from fgsynth.utils.parallel import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        parts = [torch.ones(2_000_000) for _ in range(3)]
        del parts
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
keep_freed_memory()
faults()
print(given_back, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_kept_memory_is_not_faulted_in_again():
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    given_back, kept = map(int, run.stdout.split())
    assert kept < given_back / 10

import platform
import subprocess
import sys

import pytest
import torch

from fgsynth.utils.threads import SMALL, threads_for


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
from fgsynth.threads import keep_freed_memory

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

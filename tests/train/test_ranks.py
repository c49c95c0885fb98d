import subprocess
import sys

import pytest
import torch

from fgsynth.train.ranks import Ranks, ranks, started


def test_alone_everything_is_ones_own_and_accelerate_is_not_loaded():
    us = ranks("cpu")
    assert us == Ranks(0, 1, torch.device("cpu"))
    assert us.first
    assert not started()
    assert us.any(True)
    assert not us.any(False)
    assert us.all(3) == [3]
    assert us.rows(5) is None
    assert torch.equal(us.joined(torch.arange(5), 5), torch.arange(5))
    first = "import sys; from fgsynth.train.ranks import ranks"
    code = f"{first}; ranks('cpu').wait(); print('accelerate' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.stdout == "False\n"


@pytest.mark.parametrize("size", [2, 3])
def test_rows_of_all_ranks_are_all_rows_once(size):
    each = [Ranks(i, size, torch.device("cpu")).rows(7) for i in range(size)]
    assert sorted(torch.cat(each).tolist()) == list(range(7))


def test_several_processes_are_told_by_their_environment(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert started()

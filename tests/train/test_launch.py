"""Processes are real ones: each launch takes seconds."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from fgsynth.train.launch import apart, together
from fgsynth.utils.errors import UserError
from fgsynth.utils.interrupts import Stopped, listening


def note(item):
    folder, name = item
    if name == "wrong":
        raise UserError("Job wrong is wrong: leave it out.")
    (folder / name).write_text(f"{os.getpid()} {os.environ.get('FGSYNTH_QUIET')}")
    # Long enough for the other process to take one too.
    time.sleep(0.5)


def test_every_item_is_done_once_by_other_processes(tmp_path):
    apart(note, [(tmp_path, name) for name in "abcdef"], 2, "jobs")
    told = {path.name: path.read_text().split() for path in tmp_path.iterdir()}
    assert sorted(told) == list("abcdef")
    assert {quiet for _, quiet in told.values()} == {"1"}
    assert str(os.getpid()) not in {pid for pid, _ in told.values()}


def test_a_mistake_in_one_is_its_sentence(tmp_path):
    with pytest.raises(UserError, match=r"^Job wrong is wrong: leave it out\.$"):
        apart(note, [(tmp_path, "a"), (tmp_path, "wrong")], 2, "jobs")


def until_asked(folder: Path) -> None:
    with listening() as asked:
        (folder / os.environ["RANK"]).touch()
        for _ in range(600):
            if asked():
                raise Stopped(f"stopped as rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}")
            time.sleep(0.05)


def test_a_signal_is_passed_on_and_the_old_handler_comes_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)

    def ask():
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask, daemon=True).start()
    with pytest.raises(Stopped, match=r"stopped as rank \d of 2"):
        together(lambda: until_asked(tmp_path), 2)
    assert signal.getsignal(signal.SIGTERM) == before

import sys

import pytest

from fgsynth.generate.pieces import Step
from fgsynth.generate.throughput import EVERY, WINDOW, Speed


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_rate_time_and_cost_by_hand(clock):
    speed = Speed(10_000, "images", price=2.5, clock=clock)
    speed.workers = 4
    assert speed.outlook() == ""
    speed.update(0, Step(1000, 0))
    clock.now = 100
    speed.update(0, Step(1500, 500))
    # 8,500 images at 5 per second are 1,700 s, on 4 workers of 2.50 an hour.
    assert speed.outlook() == "5.00 images/s, 0:28 h left, cost left 4.72"
    assert str(speed) == f"images: 1500 of 10000 images, {speed.outlook()}"


def test_what_was_found_makes_nobody_faster(clock):
    speed = Speed(100, "images", clock=clock)
    clock.now = 10
    speed.update(0, Step(90, 0))
    assert (speed.there, speed.made, speed.rate) == (90, 0, 0)


def test_images_of_a_shard_that_begins_anew_count_once(clock):
    speed = Speed(100, "images", clock=clock)
    for step in (Step(10, 10), Step(20, 10), Step(10, 0), Step(20, 10)):
        speed.update(7, step)
    assert (speed.there, speed.made) == (20, 30)


def test_the_rate_is_that_of_late(clock):
    speed = Speed(10**6, "images", clock=clock)
    for second in range(1, 4001):
        clock.now = float(second)
        speed.update(0, Step(second, 1 if second <= 2000 else 3))
    assert speed.rate == pytest.approx(3, rel=0.01)
    assert len(speed._history) < WINDOW + 3


def test_a_log_gets_a_line_a_minute_and_quiet_ones_none(clock, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # by which pytest's plugin makes bars
    for quiet in (True, False):
        if not quiet:
            monkeypatch.delenv("FGSYNTH_QUIET")
        with Speed(100, "tiny", clock=clock) as speed:
            for _ in range(4):
                clock.now += EVERY / 2
                speed.update(0, Step(10, 5))
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == (0 if quiet else 2)
        assert all(line.startswith("fgsynth: tiny: 10 of 100 images, 0.") for line in lines)

import numpy as np
import pandas as pd
import pytest

from fgsynth.evaluate.advice import advise
from fgsynth.utils.errors import UserError

PLACES = {"8": (8, 90.0), "32": (32, 80.0), "150": (150, 85.0), "600": (600, 88.0)}


def world(gain, draws=3):
    """Rows of a map where n images, of which r % are recognised, gain gain(n, r, draw) on Few."""
    rng, rows = np.random.default_rng(0), []
    for draw in range(draws):
        for value, (n, right) in PLACES.items():
            few = 60 + rng.normal()
            at = {
                "factor": "images",
                "value": value,
                "world": draw,
                "seed": 0,
                "images": n,
                "recognised": right,
            }
            rows += [{**at, "arm": "unguided", "few": few}]
            rows += [{**at, "arm": "guided", "few": few + gain(n, right, draw) + 0.2 * rng.normal()}]
    return pd.DataFrame(rows)


def test_a_rule_that_holds_on_other_draws_is_given():
    rows = world(lambda n, *_: 3 if n >= 150 else -2)
    on, off = advise({"images": 400}, rows), advise({"images": 20}, rows)
    assert (on.feedback, off.feedback) == (True, False)
    assert on.reason == off.reason
    assert on.reason.startswith("synthetic images per class at least 150: +3.1 points of few on draws")
    assert on.gain.low > 0
    unknown = advise({"recognised": 80}, rows)
    assert not unknown.feedback
    assert unknown.reason.startswith("leave it off until `images` is measured: it needs synthetic images per")


def test_a_rule_may_be_that_less_is_better():
    rows = world(lambda _, right, __: 4 if right <= 85 else -3)
    assert advise({"recognised": 70.0}, rows).feedback
    assert not advise({"recognised": 95.0}, rows).feedback


@pytest.mark.parametrize(
    "gain",
    [
        lambda *_: -1,
        # Every draw has another setting that gains: what is made from some fails on the others.
        lambda n, _, draw: 9 if [8, 32, 600][draw] == n else -3,
        # Right in sign, of a size that three draws do not tell from none.
        lambda _, __, draw: [9, 0.5, 0.1][draw],
    ],
)
def test_without_evidence_it_says_so(gain):
    given = advise({"images": 400}, world(gain))
    assert not given.feedback
    assert given.reason == "not decided by the measurements: leave it off, as it costs time"


def test_one_draw_is_no_evidence():
    assert not advise({"images": 400}, world(lambda *_: 5, draws=1)).feedback


def test_an_unknown_measurement_is_refused():
    with pytest.raises(UserError, match="there is no measurement 'pictures': choose from images, cfg"):
        advise({"pictures": 3}, world(lambda *_: 1))

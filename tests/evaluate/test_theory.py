from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fgsynth.evaluate.theory import Examples, error, gain, least_error, placed, simulated

CASES = {
    "all": Examples(2.0),
    "hard, a weak guide": Examples(2.0, guide=0.7, kept="hard", share=0.3),
    "hard, wrong labels": Examples(2.0, right=0.8, guide=0.7, kept="hard"),
    "easy, few": Examples(0.5, right=0.9, guide=0.95, kept="easy"),
    "easy, many": Examples(5.0, right=0.7, guide=0.3, kept="easy", share=0.2),
    "hard, a perfect guide": Examples(1.0, right=0.9, guide=0.9999, kept="hard"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("ridge", [0.01, 0.3, 3.0])
def test_a_simulation_agrees_with_the_formula(name, ridge):
    found = np.array([simulated(CASES[name], ridge, 300, seed) for seed in range(12)])
    # Twelve draws, and what remains of the limit in 300 dimensions.
    assert found.mean() == pytest.approx(
        float(error(CASES[name], ridge)), abs=3.5 * found.std(ddof=1) / 12**0.5 + 0.002
    )


def test_without_noise_and_with_many_examples_nothing_is_wrong():
    assert least_error(Examples(1e4)) < 0.005
    assert least_error(Examples(1e-3)) == pytest.approx(0.5, abs=0.03)
    # Labels that are right half of the time say nothing.
    assert least_error(Examples(100.0, right=0.5)) == pytest.approx(0.5)


def test_a_guide_that_knows_nothing_selects_nothing_by_the_labels():
    blind = Examples(3.0, guide=0.0)
    across = [float(error(replace(blind, kept=kept), 0.5)) for kept in ("hard", "easy")]
    assert across == pytest.approx([float(error(blind, 0.5))] * 2, abs=0.02)


@pytest.mark.parametrize("guide", [0.7, 0.95])
def test_hard_examples_gain_with_many_whose_labels_are_as_right(guide):
    scarce, many = Examples(0.5, guide=guide), Examples(10.0, guide=guide)
    assert gain(scarce) < 0 < gain(many)
    assert least_error(replace(scarce, kept="easy")) < least_error(scarce)
    # Labels that are wrong in all kinds alike leave the sign; in the hard ones alone they turn it.
    assert gain(replace(many, right=0.8)) > 0
    assert gain(many, right=0.8) < 0
    # A better guide gains more.
    assert gain(replace(many, guide=0.99)) > gain(many)


def test_settings_are_placed_where_the_prediction_is_what_was_measured():
    row = {"factor": "base", "value": "base", "guide_right": 70.0, "real_share": 0.5}
    rows = pd.DataFrame(
        [
            {**row, "arm": "unguided", "overall": 80.0, "recognised": 90.0},
            {**row, "arm": "guided", "overall": 99.0, "recognised": 80.0},
        ]
    )
    ((*_, per_dimension, predicted),) = placed(rows).to_numpy()
    of = Examples(per_dimension, right=0.95, guide=float(np.cos(0.3 * np.pi)))
    assert least_error(of) == pytest.approx(0.2, abs=1e-3)
    assert predicted == pytest.approx(gain(of, 0.9))
    assert placed(rows.drop(columns="guide_right")).empty

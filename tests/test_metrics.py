import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgsynth.errors import UserError
from fgsynth.metrics import Interval, interval, long_tail_accuracy, per_class_accuracy, strata


def test_strata_at_the_thresholds():
    assert strata([101, 100, 20, 19]).tolist() == ["many", "medium", "medium", "few"]


def test_groups_are_means_of_classes_and_overall_is_over_samples():
    label = np.array([0] * 9 + [1] + [2] * 2)
    predicted = np.array([0] * 9 + [0] + [2, 0])
    result = long_tail_accuracy(predicted, label, [500, 300, 5])
    assert result["many"] == pytest.approx((100 + 0) / 2)
    assert result["few"] == 50
    assert result["overall"] == pytest.approx(100 * 10 / 12)
    assert np.isnan(result["medium"])


def test_class_without_samples_is_nan():
    assert np.isnan(per_class_accuracy([0], [0], 2)[1])


def test_interval_against_a_printed_t_table():
    # t(0.975, 4) = 2.776
    result = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert result.mean == 3
    assert result.half_width == pytest.approx(2.776 * np.sqrt(2.5) / np.sqrt(5), rel=1e-3)
    assert interval([2.0]).half_width == float("inf")
    for bad in ([], [1.0, float("nan")]):
        with pytest.raises(UserError, match="at least one value"):
            interval(bad)


def test_sign_needs_an_interval_off_zero():
    assert [Interval(m, 1, 5).sign for m in (1.5, 0.5, -0.5, -1.5)] == [1, 0, 0, -1]


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20), st.floats(-50, 50))
def test_interval_moves_with_the_data(values, shift):
    a, b = interval(values), interval(np.array(values) + shift)
    assert b.mean == pytest.approx(a.mean + shift, abs=1e-6)
    assert b.half_width == pytest.approx(a.half_width, abs=1e-6)

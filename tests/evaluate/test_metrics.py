import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgsynth.evaluate.metrics import (
    Interval,
    group_accuracy,
    interval,
    long_tail_accuracy,
    paired_interval,
    per_class_accuracy,
    split_interval,
    strata,
)
from fgsynth.utils.errors import UserError


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


def test_groups_of_class_and_context_by_hand():
    #            group: 0  0  1  2  2  2  5       (2 contexts; class 2 context 0 is empty)
    label = np.array([0, 0, 0, 1, 1, 1, 2])
    context = np.array([0, 0, 1, 0, 0, 0, 1])
    predicted = np.array([0, 1, 0, 1, 1, 2, 2])
    result = group_accuracy(predicted, label, context, n_classes=3, n_contexts=2)
    expected = [50, 100, 200 / 3, np.nan, np.nan, 100]
    np.testing.assert_allclose(result["per_group"], expected)
    assert result["average_accuracy"] == pytest.approx(100 * 5 / 7)
    assert result["worst_group_accuracy"] == 50


def test_predicting_another_class_of_the_same_context_is_a_miss():
    assert group_accuracy([1], [0], [1], 2, 2)["worst_group_accuracy"] == 0


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (([0], [3], [0]), "Label 3 is out of range: give integers from 0 to 2"),
        (([0], [-1], [0]), "Label -1"),
        (([0], [0], [2]), "Context 2 is out of range: give integers from 0 to 1"),
        (([0], [0], [0, 1]), "1 predictions, 1 labels and 2 contexts"),
        (([], [], []), "at least one sample"),
    ],
)
def test_groups_out_of_range_are_named(given, sentence):
    with pytest.raises(UserError, match=sentence):
        group_accuracy(*given, n_classes=3, n_contexts=2)


def _methods(rng, n_seeds=5, n_classes=4, each=50, gap=0.1, seeds_differ=0.05):
    """Hits of two methods, (2, n_seeds, n): images of every difficulty, seeds of some luck; labels.

    The mean difference is 100 `gap` exactly: no chance leaves [0, 1].
    """
    label = np.repeat(np.arange(n_classes), each)
    difficulty = rng.uniform(0.2, 0.7, len(label))
    own = rng.uniform(-0.1, 0.1, (2, 1, len(label)))
    luck = rng.uniform(-seeds_differ, seeds_differ, (2, n_seeds, 1))
    chance = difficulty + own + luck + np.array([gap, 0]).reshape(2, 1, 1)
    return rng.random(chance.shape) < chance, label


def test_the_interval_is_around_the_observed_difference():
    label = np.array([0, 0, 0, 0, 1, 1])
    a = np.array([[1, 1, 1, 0, 1, 0], [1, 1, 1, 1, 0, 0]], bool)  # classes: 75, 50; 100, 0
    b = np.array([[1, 0, 0, 0, 1, 1], [1, 1, 0, 0, 1, 0]], bool)  # classes: 25, 100; 50, 50
    mean = paired_interval(a, b, label).mean
    assert mean == pytest.approx(((75 + 50 + 100 + 0) - (25 + 100 + 50 + 50)) / 4)
    worst = paired_interval(a, b, label, statistic="worst").mean
    assert worst == pytest.approx((50 + 0) / 2 - (25 + 50) / 2)


def test_where_images_do_not_vary_the_interval_is_students_and_where_seeds_do_not_the_images():
    label = np.repeat([0, 1], 200)
    share = np.array([0.4, 0.5, 0.6])
    by_seed = np.stack([np.arange(400) % 200 < 200 * p for p in share])
    none = np.zeros_like(by_seed)
    # The same images are always right: what differs is the seed's own.
    t = interval(100 * share).half_width
    assert paired_interval(by_seed, none, label).half_width == pytest.approx(t, rel=0.05)
    alike = np.repeat(np.random.default_rng(0).random((1, 400)) < 0.5, 3, axis=0)
    p = [alike[0, label == c].mean() for c in (0, 1)]
    normal = 196 * np.sqrt(sum(x * (1 - x) / 200 for x in p)) / 2
    assert paired_interval(alike, none, label).half_width == pytest.approx(normal, rel=0.02)


@pytest.mark.parametrize("statistic", ["mean", "worst"])
def test_a_method_against_itself_is_zero_as_narrowly_as_its_images_can_tell(statistic):
    (a, _), label = _methods(np.random.default_rng(1))
    few, many = (np.tile(np.arange(len(label)), n) for n in (1, 20))
    results = [paired_interval(a[:, i], a[:, i], label[i], statistic=statistic) for i in (few, many)]
    assert [r.mean for r in results] == [0, 0]
    assert 5 > results[0].half_width > 10 * results[1].half_width > 0


@pytest.mark.parametrize("statistic", ["mean", "worst"])
@pytest.mark.parametrize("label", [[0, 0], [0, 1], [0, 0, 0, 0, 1, 1]])
def test_a_few_images_that_agree_are_no_certainty(statistic, label):
    right = np.ones((3, len(label)), dtype=bool)
    better = paired_interval(right, ~right, np.array(label), statistic=statistic)
    assert (better.mean, better.half_width > 20) == (100, True)
    assert paired_interval(right, right, np.array(label), statistic=statistic).half_width > 20


@pytest.mark.parametrize("statistic", ["mean", "worst"])
def test_swapping_the_methods_turns_the_interval_round(statistic):
    (a, b), label = _methods(np.random.default_rng(2))
    there, back = (paired_interval(*both, label, statistic=statistic) for both in ((a, a & b), (a & b, a)))
    assert there.sign == 1
    # Hit patterns come in another order, so the draws of the worst differ a little.
    np.testing.assert_allclose([back.low, back.high], [-there.high, -there.low], atol=1)
    assert paired_interval(a, b, label, statistic=statistic) == paired_interval(
        a, b, label, statistic=statistic
    )


@pytest.mark.parametrize("n_seeds", [2, 3, 5])
@pytest.mark.parametrize("luck", [0.01, 0.1])
def test_intervals_cover_the_truth_at_the_numbers_of_seeds_in_use(n_seeds, luck):
    rng = np.random.default_rng(n_seeds)
    covered = []
    for _ in range(500):
        hits, label = _methods(rng, n_seeds, seeds_differ=luck)
        result = paired_interval(*hits, label)
        covered.append(result.low <= 10 <= result.high)
    assert 0.93 <= np.mean(covered) <= 0.995


@pytest.mark.parametrize("per_class", [1, 2, 5])
@pytest.mark.parametrize("easy", [(5, 5), (20, 1)])
def test_intervals_of_few_images_per_class_cover_the_truth(per_class, easy):
    rng = np.random.default_rng(per_class)
    label, covered = np.repeat(np.arange(6), per_class), []
    for _ in range(400):
        chance = rng.beta(*easy, len(label)) + rng.normal(0, 0.1, (2, 1, len(label)))
        hits = rng.random((2, 3, len(label))) < chance
        result = paired_interval(*hits, label)
        covered.append(result.low <= 0 <= result.high)
    assert np.mean(covered) >= 0.93


def test_over_random_splits_the_interval_covers_and_images_not_tested_do_not_count():
    rng = np.random.default_rng(4)
    label, covered = np.repeat(np.arange(5), 8), []
    for _ in range(300):
        chance = rng.beta(4, 2, len(label)) + rng.normal(0, 0.1, (2, 1, len(label)))
        hits = rng.random((2, 6, len(label))) < chance
        held = np.stack([rng.permuted(np.tile([1, 1, 0, 0, 0, 0, 0, 0], (5, 1)), axis=1) for _ in range(6)])
        held = held.reshape(6, -1).astype(bool)
        result = split_interval(*hits, held, label)
        other = split_interval(hits[0] & held, hits[1] & held, held, label)
        assert (other.mean, other.half_width) == (result.mean, result.half_width)
        covered.append(result.low <= 0 <= result.high)
    assert 0.93 <= np.mean(covered) < 1
    every = np.ones_like(held)
    whole, expected = split_interval(*hits, every, label), paired_interval(*hits, label)
    assert (whole.mean, whole.half_width) == pytest.approx((expected.mean, expected.half_width))
    with pytest.raises(UserError, match="Every split must hold out at least one image"):
        split_interval(*hits, np.zeros_like(held), label)


def test_one_seed_says_nothing_of_seeds():
    hits, label = _methods(np.random.default_rng(0), n_seeds=1)
    assert paired_interval(*hits, label).sign == 0
    assert np.isinf(paired_interval(*hits, label).half_width)


def test_hits_that_do_not_fit_are_named():
    a, label = np.ones((2, 3), bool), np.zeros(3, int)
    cases = [
        ((a.astype(int), a, label), {}, "Hits of type int64"),
        ((a, a[:1], label), {}, r"Hits of shapes \(2, 3\) and \(1, 3\)"),
        ((a[0], a[0], label), {}, "n_seeds, n"),
        ((a, a, label[:2]), {}, "one label per image"),
        ((a, a, label), {"statistic": "median"}, "choose 'mean' or 'worst'"),
    ]
    for inputs, more, sentence in cases:
        with pytest.raises(UserError, match=sentence):
            paired_interval(*inputs, **more)

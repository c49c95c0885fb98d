import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtrit

from fgsynth.evaluate.draws import PRIOR_DF, Prior, components, nested_interval
from fgsynth.evaluate.metrics import interval
from fgsynth.utils.errors import UserError

SD = {"world": 2.0, "set": 1.0, "classifier": 1.5, "rounding": 0.7}


def measured(rng, worlds, sets, classifiers, **change):
    """Differences of mean 0 with known components, and those with other rounding."""
    sd = SD | change
    world = rng.normal(0, sd["world"], (worlds, 1, 1))
    each = world + rng.normal(0, sd["set"], (worlds, sets, 1))
    each = each + rng.normal(0, sd["classifier"], (worlds, sets, classifiers))
    own = each + rng.normal(0, sd["rounding"], each.shape)
    return own, (each + rng.normal(0, sd["rounding"], each.shape))[:, 0]


def test_known_components_are_recovered():
    found = components(*measured(np.random.default_rng(0), 2000, 2, 3)).set_index("source")
    assert found["sd"].to_dict() == pytest.approx(SD, rel=0.1)
    assert found["df"].tolist() == [1999, 2000, 8000, 6000]
    assert found["p"]["world"] < 1e-6
    assert found["p"]["set"] < 1e-6


def test_estimates_are_unbiased_at_the_size_that_is_run_where_none_is_negative():
    rng = np.random.default_rng(1)
    several = [components(*measured(rng, 4, 2, 2, world=20, set=5))["sd"] for _ in range(600)]
    variances = np.mean(np.square(several), axis=0)
    assert variances[:2] == pytest.approx([400, 25], rel=0.1)
    assert variances[3] == pytest.approx(0.49, rel=0.1)


def test_where_a_source_adds_nothing_it_is_zero_and_seldom_significant():
    rng = np.random.default_rng(2)
    several = [components(*measured(rng, 4, 2, 2, world=0, set=0)) for _ in range(500)]
    sd, p = (np.array([one[key][:2] for one in several]) for key in ("sd", "p"))
    assert ((sd == 0).mean(0) > 0.3).all()
    assert (sd >= 0).all()
    assert (p < 0.05).mean(0) == pytest.approx([0.05, 0.05], abs=0.03)


def test_components_by_hand():
    own = np.array([[[1.0, 3.0], [5.0, 7.0]], [[2.0, 2.0], [4.0, 4.0]]])
    found = components(own, own[:, 0] + [[1.0, -1.0], [1.0, -1.0]]).set_index("source")
    # Mean squares: worlds 4 * .5, sets 2 * mean(8, 2), classifiers mean(2, 2, 0, 0), rounding 1 / 2.
    assert found["sd"].tolist() == pytest.approx([0, np.sqrt((10 - 1) / 2), np.sqrt(1 - 0.5), np.sqrt(0.5)])


@pytest.mark.parametrize(
    ("values", "again", "sentence"),
    [
        (np.zeros((2, 2)), np.zeros((2, 2)), "give \\(worlds, sets, classifiers\\)"),
        (np.zeros((2, 1, 2)), np.zeros((2, 2)), "at least two of each"),
        (np.zeros((2, 2, 3)), np.zeros((2, 2)), "shape \\(2, 2, 3\\) and \\(2, 2\\)"),
        (np.full((2, 2, 2), np.nan), np.zeros((2, 2)), "there is a NaN"),
    ],
)
def test_components_of_what_does_not_fit_are_refused(values, again, sentence):
    with pytest.raises(UserError, match=sentence):
        components(values, again)


def test_without_a_prior_it_is_students_of_the_draws():
    found = nested_interval([[1.0, 3.0], [4.0], [6.0, 5.0, 7.0]])
    assert (found.mean, found.n) == (4, 3)
    assert found.half_width == pytest.approx(4.303 * 2 / np.sqrt(3), rel=1e-3)
    assert nested_interval([[1.0, 2.0]]).half_width == np.inf


def test_a_prior_counts_for_two_draws_and_replaces_none():
    draws, prior = np.array([[1.0, 3.0], [4.0, 4.0]]), Prior(2.0, 3.0)
    each = (2 * (2.0 + 3.0 / 2) + 2.0) / 3
    assert PRIOR_DF == 2
    assert nested_interval(draws, prior).half_width == pytest.approx(stdtrit(3, 0.975) * np.sqrt(each / 2))
    assert nested_interval(draws[:1], prior).half_width == pytest.approx(stdtrit(2, 0.975) * np.sqrt(3.5))


@pytest.mark.parametrize(
    ("differences", "prior", "sentence"),
    [
        ([], None, "at least one draw"),
        ([[1.0], []], None, "Draw 1 has the differences \\[\\]"),
        ([[1.0, float("nan")]], None, "Draw 0 has the differences .* no NaN"),
        ([[1.0], [2.0]], Prior(-1.0, 1.0), "Prior variances \\(-1.0, 1.0\\)"),
        ([[1.0], [2.0]], Prior(1.0, float("nan")), "not below zero"),
    ],
)
def test_differences_that_make_no_interval_are_named(differences, prior, sentence):
    with pytest.raises(UserError, match=sentence):
        nested_interval(differences, prior)


@pytest.fixture(scope="module", params=["LDM (txt, img, dropout)", "LDM-FG (Entropy)"])
def sd(request, root):
    """Committed components of a difference on Few; "world" has what test images add, "rounding" is apart."""
    table = pd.read_csv(root / "reports" / "variance" / "components.csv")
    mine = table[(table["method"] == request.param) & (table["metric"] == "few")]
    found = mine.set_index("source")["sd"].drop("images").to_dict()
    assert min(found["world"] + found["set"], found["classifier"] + found["rounding"]) > 0
    return found


def prior_of(sd):
    return Prior(sd["world"] ** 2 + sd["set"] ** 2, sd["classifier"] ** 2 + sd["rounding"] ** 2)


def covered(sd, draws, classifiers, factor, of=nested_interval, n=4000, estimated=False):
    """Share of intervals that cover 0 where standard deviations are `factor` times those of the prior.

    estimated: the prior is not the truth but measured anew each time, with as few draws as are run.
    """
    rng, hits, prior = np.random.default_rng(draws), 0, prior_of(sd)
    for _ in range(n):
        if estimated:
            prior = prior_of(components(*measured(rng, 4, 2, 2, **sd)).set_index("source")["sd"])
        found = of(factor * measured(rng, draws, 1, classifiers, **sd)[0][:, 0], prior)
        hits += found.low <= 0 <= found.high
    return hits / n


@pytest.mark.parametrize(("draws", "classifiers"), [(2, 2), (2, 3), (3, 2), (3, 3), (5, 2)])
@pytest.mark.parametrize("factor", [0.5, 1, 1.5])
def test_intervals_cover_at_the_numbers_of_draws_in_use(sd, draws, classifiers, factor):
    assert covered(sd, draws, classifiers, factor) >= 0.93


def test_intervals_cover_with_a_prior_of_as_few_draws_as_are_measured(sd):
    assert covered(sd, 3, 3, 1, n=1000, estimated=True) >= 0.93


def test_the_classifiers_of_a_draw_are_no_draws(sd):
    """What is not done does not cover: this is what the simulation is able to tell."""
    assert covered(sd, 3, 3, 1, lambda values, _: interval(values.ravel())) < 0.93
    assert covered(sd, 3, 3, 1, lambda values, _: nested_interval(values)) == pytest.approx(0.95, abs=0.01)

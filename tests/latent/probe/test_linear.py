import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from fgsynth.latent.probe.discriminant import statistics
from fgsynth.latent.probe.linear import Probe, average_accuracy, fit_probe, path, select
from fgsynth.latent.probe.objective import Objective
from fgsynth.train.losses import balanced_softmax
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator

COUNTS = torch.tensor([120, 40, 8])


@pytest.fixture(scope="module")
def data():
    """Overlapping classes, 120, 40 and 8 rows, of features whose dimensions have unequal scales and means."""
    g = generator("probe")
    label = torch.arange(3).repeat_interleave(COUNTS)
    scale = torch.tensor([10.0, 3.0, 1.0, 1.0, 0.3, 0.1])
    centre = 0.9 * torch.randn(3, 6, generator=g)
    return (torch.randn(168, 6, generator=g) + centre[label]) * scale + 1, label


def objective_of(probe, data):
    return Objective(*data, probe.weight_decay)(probe.weight, probe.bias)[0]


@pytest.mark.parametrize("weight_decay", [1e-1, 1e-3])
def test_optimum_is_that_of_scikit_learns_logistic_regression(data, weight_decay):
    probe = fit_probe(*data, 3, weight_decay=weight_decay, tolerance=1e-5)
    theirs = LogisticRegression(C=1 / (2 * 168 * weight_decay), tol=1e-10, max_iter=10_000)
    theirs.fit(data[0].double().numpy(), data[1].numpy())
    # The bias is fixed up to a constant, as softmax does not change by one.
    bias = probe.bias - probe.bias.mean()
    # Single precision tells the objective to about 1e-7, so a weight of curvature 2e-3 to 1e-2.
    np.testing.assert_allclose(probe.weight.T, theirs.coef_, atol=1e-2)
    np.testing.assert_allclose(bias, theirs.intercept_ - theirs.intercept_.mean(), atol=1e-2)
    best = Probe(torch.tensor(theirs.coef_.T), torch.tensor(theirs.intercept_), weight_decay=weight_decay)
    double = data[0].double(), data[1]
    assert probe.objective == pytest.approx(objective_of(best, double), abs=1e-6)
    assert probe.converged


def test_default_tolerance_is_close_to_the_minimum(data):
    for decay in (1e-1, 1e-3, 1e-5):
        rough = fit_probe(*data, 3, weight_decay=decay)
        exact = fit_probe(*data, 3, weight_decay=decay, tolerance=1e-5, iterations=2000)
        assert rough.converged
        assert rough.objective == pytest.approx(exact.objective, abs=1e-4)


def test_path_goes_from_large_to_small_and_ends_where_each_would_alone(data):
    decays = [1e-4, 1e-1, 1e-2]
    probes = path(*data, 3, decays, tolerance=1e-5)
    assert [probe.weight_decay for probe in probes] == [1e-1, 1e-2, 1e-4]
    for probe in probes:
        alone = fit_probe(*data, 3, weight_decay=probe.weight_decay, tolerance=1e-5)
        assert probe.objective == pytest.approx(alone.objective, abs=1e-5)
        assert objective_of(probe, data) == pytest.approx(probe.objective, abs=1e-5)


def test_balanced_softmax_moves_the_rare_class(data):
    plain = fit_probe(*data, 3, weight_decay=1e-3)
    balanced = plain.adjusted(COUNTS, 1.0)
    rare = data[0][data[1] == 2]
    assert (balanced.predict(rare) == 2).sum() > (plain.predict(rare) == 2).sum()
    assert (balanced.predict(data[0]) == 2).sum() > (plain.predict(data[0]) == 2).sum()


def test_logit_adjustment_by_one_is_the_minimum_of_balanced_softmax(data):
    # Cross entropy on z + log prior has its minimum where that on z has it, less log prior.
    e, y = data[0].double(), data[1]
    probe = fit_probe(*data, 3, weight_decay=1e-2, tolerance=1e-6, iterations=5000)
    adjusted = probe.adjusted(COUNTS, 1.0)
    at = [t.double().requires_grad_(True) for t in (adjusted.weight, adjusted.bias)]

    def slope(tau):
        logits = e @ at[0] + at[1] + (1 - tau) * torch.log(COUNTS / 168)
        value = balanced_softmax(logits, y, COUNTS) + 1e-2 * at[0].square().sum()
        return max(float(g.abs().max()) for g in torch.autograd.grad(value, at))

    assert slope(1.0) < 1e-3
    assert slope(0.0) > 0.1


def test_logit_adjustment_subtracts_tau_log_prior(data):
    raw = fit_probe(*data, 3, weight_decay=1e-3)
    expected = raw.logits(data[0]) - 1.5 * torch.log(COUNTS / 168)
    torch.testing.assert_close(raw.adjusted(COUNTS, 1.5).logits(data[0]), expected)


def test_on_digits_the_optimum_is_that_of_scipys_l_bfgs():
    e, y = (torch.from_numpy(x) for x in load_digits(return_X_y=True))
    e, y = e.float() / 16, y.long()
    probe = fit_probe(e, y, 10, weight_decay=1e-4, tolerance=1e-5, iterations=2000)
    objective = Objective(e.double(), y, 1e-4)

    def function(x):
        w = torch.from_numpy(x).view(65, 10)
        value, slope, slope_b = objective(w[:-1], w[-1])
        return value, torch.cat([slope.flatten(), slope_b]).numpy()

    start = torch.cat([statistics(e, y, 10).means.T, torch.zeros(1, 10)]).double().flatten().numpy()
    theirs = minimize(function, start, jac=True, method="L-BFGS-B", options={"maxiter": 3000, "maxfun": 5000})
    assert probe.converged
    assert probe.objective == pytest.approx(theirs.fun, abs=1e-3)


def test_features_that_never_vary_do_no_harm(data):
    e, y = data
    wide = torch.cat([e, torch.full((168, 2), 3.0)], 1)
    alone, beside = (fit_probe(x, y, 3, weight_decay=1e-3, tolerance=1e-5) for x in (e, wide))
    assert beside.objective == pytest.approx(alone.objective, abs=1e-4)


@pytest.mark.parametrize("real", [3, 60])
def test_rows_behind_the_coordinates_do_not_move_the_minimum(data, real):
    few, whole = (fit_probe(*data, 3, weight_decay=1e-2, tolerance=1e-6, real=n) for n in (real, None))
    assert few.converged
    assert few.objective == pytest.approx(whole.objective, rel=1e-5)
    torch.testing.assert_close(few.logits(data[0]), whole.logits(data[0]), atol=0.02, rtol=0)


def test_more_dimensions_than_rows_without_weight_decay_stay_finite():
    g = generator("wide")
    e, y = torch.randn(6, 20, generator=g), torch.tensor([0, 0, 1, 1, 2, 2])
    probe = fit_probe(e, y, 3, weight_decay=0.0)
    assert probe.weight.isfinite().all()
    assert torch.equal(probe.predict(e), y)


def test_selection_is_by_average_accuracy_and_takes_the_first_of_equals(data):
    e, y = data
    # Right on the two rare classes, against right on the large one alone.
    rare = Probe(torch.zeros(6, 3), torch.tensor([0.0, 0.0, 1.0]))
    large = Probe(torch.zeros(6, 3), torch.tensor([1.0, 0.0, 0.0]), weight_decay=1.0)
    good = fit_probe(e, y, 3, weight_decay=1e-3)
    assert average_accuracy(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 2])) == 50
    assert select(e, y, [large, good, rare]) is good
    assert select(e, y, [large, rare]) is large
    assert select(e, y, [rare, large]) is rare


def test_bad_data_is_refused(data):
    e, y = data
    with pytest.raises(UserError, match="not finite"):
        fit_probe(torch.full_like(e, torch.nan), y, 3, weight_decay=0.0)
    with pytest.raises(UserError, match="Class 3 has no features"):
        fit_probe(e, y, 4, weight_decay=0.0)
    with pytest.raises(UserError, match="Class 2 among the features: their classes are 0 to 1"):
        fit_probe(e, y, 2, weight_decay=0.0)
    with pytest.raises(UserError, match="Class 1 has no images by counts 'real'"):
        fit_probe(e, y, 3, weight_decay=1.0).adjusted(torch.tensor([1, 0, 1]), 1.0)
    with pytest.raises(UserError, match="No probe to select from"):
        select(e, y, [])
    with pytest.raises(UserError, match=r"shape \(168, 5\) for a probe of 6 dimensions"):
        fit_probe(e, y, 3, weight_decay=1.0).predict(e[:, :5])

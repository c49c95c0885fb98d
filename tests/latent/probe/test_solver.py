from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from tiny_features import problem

from fgsynth.latent.probe.discriminant import Statistics, statistics
from fgsynth.latent.probe.objective import Objective
from fgsynth.latent.probe.solver import Coordinates, minimise
from fgsynth.utils.seeds import generator


def found_in(objective):
    return statistics(objective.features.float(), objective.label, 3)


def found_in_double(objective):
    found = found_in(objective)
    return Statistics(*(getattr(found, f.name).double() for f in fields(Statistics)))


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000), st.sampled_from([0.0, 0.01, 1.0]))
def test_coordinates_lead_there_and_back(seed, weight_decay):
    objective, (weight, bias) = problem(weight_decay=weight_decay, seed=seed, dtype=torch.float)
    space = Coordinates.of(objective, found_in(objective))
    back = space.unpack(space.pack(weight, bias))
    torch.testing.assert_close(back, (weight, bias), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("weight_decay", [0.05, 0.0])
def test_slope_in_the_coordinates_agrees_with_finite_differences(weight_decay):
    objective, (weight, bias) = problem(weight_decay)
    space = Coordinates.of(objective, found_in_double(objective))
    x = space.pack(weight, bias)
    slope = space.slope(*objective(*space.unpack(x))[1:])
    direction = torch.randn(len(x), generator=generator("direction"), dtype=torch.double).numpy()
    h = 1e-5
    ends = [objective(*space.unpack(x + sign * h * direction))[0] for sign in (1, -1)]
    assert float(slope @ direction) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5)


def test_it_says_whether_it_converged():
    objective, (weight, bias) = problem(dtype=torch.float)
    found, zero = found_in(objective), (torch.zeros_like(weight), torch.zeros_like(bias))
    short = minimise(objective, found, zero, 1, 1e-4)
    long = minimise(objective, found, zero, 200, 1e-4)
    assert not short.converged
    assert long.converged
    assert long.value < short.value < objective(*zero)[0]
    assert short.iterations < long.iterations
    assert objective(long.weight, long.bias)[1].abs().max() < 1e-4


@pytest.mark.parametrize("tolerance", [0.5, 0.05, 1e-4])
@pytest.mark.parametrize("weight_decay", [1e-2, 1e-5])
def test_converged_is_true_of_the_minimum(weight_decay, tolerance):
    """Along a path: a small weight decay started at a larger one's optimum has a small gradient far away."""
    g = generator("converged")
    label = torch.arange(60) % 3
    features = torch.randn(60, 40, generator=g, dtype=torch.double) + 2 * torch.eye(3, 40)[label]
    objective = Objective(features, label, 0.1)
    found = found_in(objective)
    zero = torch.zeros(40, 3).double(), torch.zeros(3).double()
    start = minimise(objective, found, zero, 500, 1e-3)
    at = start.weight, start.bias
    low = replace(objective, weight_decay=weight_decay)
    exact = minimise(low, found, at, 5000, 1e-8).value
    for iterations in (1, 3, 10, 30, 100, 1000):
        end = minimise(low, found, at, iterations, tolerance)
        assert end.iterations <= iterations
        if end.converged:
            assert end.value - exact <= tolerance * end.value
    assert end.converged


def test_in_double_precision_the_optimum_is_that_of_scikit_learns_to_seven_digits():
    objective, (weight, bias) = problem()
    end = minimise(objective, found_in_double(objective), (weight, bias), 500, 1e-8)
    theirs = LogisticRegression(C=1 / (2 * 40 * objective.weight_decay), tol=1e-12, max_iter=10_000)
    theirs.fit(objective.features.numpy(), objective.label.numpy())
    assert end.converged
    torch.testing.assert_close(end.weight.T, torch.from_numpy(theirs.coef_), rtol=0, atol=1e-7)
    intercept = torch.from_numpy(theirs.intercept_ - theirs.intercept_.mean())
    torch.testing.assert_close(end.bias - end.bias.mean(), intercept, rtol=0, atol=1e-7)

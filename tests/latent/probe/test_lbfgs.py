import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fgsynth.latent.probe.lbfgs import TRIALS, State, descend, line_search, quasi_newton
from fgsynth.utils.seeds import generator

EPS = torch.finfo(torch.double).eps


def bowl(n, seed, condition=100.0):
    """A quadratic x^T A x / 2 - b^T x with its minimum, and A."""
    g = generator("bowl", n, seed)
    axes = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.double))[0]
    a = axes @ torch.logspace(0, math.log10(condition), n, dtype=torch.double).diag() @ axes.T
    lowest = torch.randn(n, generator=g, dtype=torch.double)

    def function(x):
        return float((x - lowest) @ a @ (x - lowest)) / 2, a @ (x - lowest)

    return function, lowest, a


def valley(x):
    """Rosenbrock's function of two variables, with its minimum 0 at (1, 1)."""
    u, v = x.tolist()
    slope = torch.tensor([-400 * u * (v - u**2) - 2 * (1 - u), 200 * (v - u**2)], dtype=torch.double)
    return 100 * (v - u**2) ** 2 + (1 - u) ** 2, slope


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 12), st.integers(0, 1000))
def test_it_finds_the_minimum_of_a_quadratic(n, seed):
    function, lowest, _ = bowl(n, seed)
    end = descend(function, torch.zeros(n, dtype=torch.double), 500, 1e-9, EPS)
    assert end.converged
    torch.testing.assert_close(end.x, lowest, rtol=0, atol=1e-7)


def test_it_follows_a_curved_valley():
    end = descend(valley, torch.tensor([-1.2, 1.0], dtype=torch.double), 200, 1e-8, EPS)
    assert end.converged
    torch.testing.assert_close(end.x, torch.ones(2, dtype=torch.double), rtol=0, atol=1e-6)
    assert end.iterations < 60


def test_every_evaluation_is_counted_and_iterations_are_limited():
    calls = []

    def counted(x):
        calls.append(x)
        return valley(x)

    end = descend(counted, torch.tensor([-1.2, 1.0], dtype=torch.double), 5, 0.0, 0.0)
    assert (end.passes, end.iterations, end.converged) == (len(calls), 5, False)
    on = descend(counted, end.x, 7, 0.0, 0.0, end)
    assert (on.passes, on.iterations) == (len(calls), 7)
    assert on.value < end.value


def test_two_loops_are_the_inverse_curvature_of_all_axes():
    _, _, a = bowl(4, 0, condition=3.0)
    # Along conjugate steps, which are A's own axes, L-BFGS knows A exactly.
    memory = [(axis, a @ axis) for axis in torch.linalg.eigh(a)[1].T]
    slope = torch.randn(4, generator=generator("slope"), dtype=torch.double)
    torch.testing.assert_close(quasi_newton(slope, memory), torch.linalg.solve(a, slope))
    assert torch.equal(quasi_newton(slope, []), slope)


@pytest.mark.parametrize("length", [1e-3, 1.0, 1e3])
def test_a_step_meets_the_wolfe_conditions_however_long_the_move(length):
    function, _, _ = bowl(5, 1)
    x = torch.zeros(5, dtype=torch.double)
    value, slope = function(x)
    move = -length * slope / slope.norm()
    step, after, slope_after, trials = line_search(function, x, value, slope, move, EPS)
    assert after <= value + 1e-4 * float(slope @ step)
    assert float(slope @ step) <= 0
    assert float(slope_after @ step) >= 0.9 * float(slope @ step)
    assert (after, trials <= TRIALS) == (function(x + step)[0], True)


def test_a_step_is_never_to_where_the_value_is_no_number():
    def wall(x):
        u = float(x[0])
        return (
            (-math.log(u) + u, torch.tensor([1 - 1 / u])) if u > 0 else (math.nan, torch.tensor([math.nan]))
        )

    end = descend(wall, torch.tensor([5.0]), 50, 1e-4, 1e-7)
    assert end.converged
    assert float(end.x) == pytest.approx(1, abs=1e-3)


def test_where_the_slope_misleads_it_stays_and_has_not_converged():
    def up(x):
        return float(x.square().sum()), -x

    start = torch.ones(3)
    end = descend(up, start, 50, 0.0, 1e-7)
    assert not end.converged
    assert torch.equal(end.x, start)
    assert end.passes == 1 + TRIALS


def test_a_memory_that_misleads_is_forgotten():
    function, lowest, _ = bowl(6, 3)
    x = torch.zeros(6, dtype=torch.double)
    value, slope = function(x)
    # By this memory the curvature is negative along the slope, so that its move goes up.
    wrong = State(x, value, slope, memory=((slope, -slope),))
    end = descend(function, x, 500, 1e-9, EPS, wrong)
    assert end.converged
    torch.testing.assert_close(end.x, lowest, rtol=0, atol=1e-7)


def test_a_plateau_beyond_the_minimum_does_not_hold_it_up():
    def pit(x):
        u = float(x[0])
        return 2 - 2 / (1 + (u - 1) ** 2), torch.tensor([4 * (u - 1) / (1 + (u - 1) ** 2) ** 2])

    value, slope = pit(torch.zeros(1))
    step, after, _, trials = line_search(pit, torch.zeros(1), value, slope, -1e4 * slope, 1e-7)
    assert after < value
    assert 0 < float(step) < 3
    assert trials < 6

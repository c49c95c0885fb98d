import contextlib
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from test_objective import HEADS, problem

from fgsynth.latent.probe.discriminant import Statistics, discriminant, statistics
from fgsynth.latent.probe.linear import fit_probe
from fgsynth.latent.probe.products import quick_products
from fgsynth.latent.probe.solver import (
    SHARES,
    Coordinates,
    centred,
    class_curvature,
    damped,
    discriminant_start,
    led_start,
    minimise,
    some_rows,
)
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
    space = Coordinates.at(objective, found_in(objective), weight, bias)
    back = space.unpack(space.pack(weight, bias))
    torch.testing.assert_close(back, (weight, bias), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("head", "scale", "weight_decay"), HEADS)
def test_slope_in_the_coordinates_agrees_with_finite_differences(head, scale, weight_decay):
    objective, (weight, bias) = problem(head, scale, weight_decay)
    space = Coordinates.at(objective, found_in_double(objective), weight, bias)
    x = space.pack(weight, bias)
    slope = space.slope(*objective(*space.unpack(x))[1:])
    direction = torch.randn(len(x), generator=generator("direction"), dtype=torch.double)
    h = 1e-5
    ends = [objective(*space.unpack(x + sign * h * direction))[0] for sign in (1, -1)]
    assert float(slope @ direction) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5)


def test_class_curvature_is_the_mean_hessian_in_the_logits():
    objective, (weight, bias) = problem(balanced=1.0)
    logits = objective.features @ weight + bias + objective.prior

    def loss(shift):
        return torch.nn.functional.cross_entropy(logits + shift, objective.label)

    hessian = torch.autograd.functional.hessian(loss, torch.zeros(3, dtype=torch.double))
    torch.testing.assert_close(class_curvature(objective, weight, bias), hessian)


def test_curvature_is_damped_from_below_only():
    assert damped(torch.tensor([0.0, 1.0, 2.0]), 0.1).tolist() == pytest.approx([0.1, 1.0, 2.0])
    assert (damped(torch.zeros(2), 0.1) > 0).all()


def test_the_start_is_the_discriminant_where_it_is_right_and_shorter_where_it_costs_too_much():
    objective, _ = problem(weight_decay=0.0, balanced=1.0, dtype=torch.float)
    found = found_in(objective)
    free, _ = discriminant_start(objective, found)
    torch.testing.assert_close(free, discriminant(found)[0])
    dear = replace(objective, weight_decay=10.0)
    weight, bias = discriminant_start(dear, found)
    assert weight.norm() < free.norm() / 4
    zero = torch.zeros_like(weight)
    assert dear(weight, bias)[0] <= dear(zero, found.share.log() - objective.prior)[0]


@pytest.mark.parametrize(("head", "scale", "weight_decay"), HEADS)
def test_the_start_is_the_best_of_its_lengths_on_the_objective_itself(head, scale, weight_decay):
    objective, _ = problem(head, scale, weight_decay)
    found = found_in_double(objective)
    weight, offset = discriminant(found, ridge=2 * weight_decay * 3)
    level = found.share.log() - objective.balanced * objective.prior
    values = [objective(share * weight, share * offset + level)[0] for share in SHARES]
    assert objective(*discriminant_start(objective, found))[0] == pytest.approx(min(values), rel=1e-9)


def test_centring_changes_no_prediction_and_shortens_the_weight():
    objective, (weight, bias) = problem(dtype=torch.float)
    at = centred(weight, bias)
    for before, after in zip((weight, bias), at, strict=True):
        torch.testing.assert_close(after.sum(-1), torch.zeros_like(after.sum(-1)))
        assert after.norm() < before.norm()
    e = objective.features
    torch.testing.assert_close((e @ at[0] + at[1]).softmax(1), (e @ weight + bias).softmax(1))


def test_it_says_whether_it_converged():
    objective, (weight, bias) = problem(dtype=torch.float)
    found, zero = found_in(objective), (torch.zeros_like(weight), torch.zeros_like(bias))
    short = minimise(objective, found, zero, 1, 1e-4)
    long = minimise(objective, found, zero, 200, 1e-4)
    assert not short.converged
    assert long.converged
    assert long.value < short.value < objective(*zero)[0]
    assert short.passes < long.passes
    assert objective(long.weight, long.bias)[1].abs().max() < 1e-4


def test_in_double_precision_the_optimum_is_that_of_scikit_learns_to_seven_digits():
    objective, (weight, bias) = problem(balanced=0.0)
    end = minimise(objective, found_in_double(objective), (weight, bias), 500, 1e-9)
    theirs = LogisticRegression(C=1 / (2 * 40 * objective.weight_decay), tol=1e-12, max_iter=10_000)
    theirs.fit(objective.features.numpy(), objective.label.numpy())
    assert end.converged
    torch.testing.assert_close(end.weight.T, torch.from_numpy(theirs.coef_), rtol=0, atol=1e-7)
    intercept = torch.from_numpy(theirs.intercept_ - theirs.intercept_.mean())
    torch.testing.assert_close(end.bias - end.bias.mean(), intercept, rtol=0, atol=1e-7)


def test_after_quick_products_it_converges_in_single_precision_to_the_same_optimum(monkeypatch):
    g = generator("quick")
    label = torch.arange(600) % 3
    features = torch.randn(600, 20, generator=g) + torch.randn(3, 20, generator=g)[label]
    counts = label.bincount()
    exact, again = (fit_probe(features, label, counts, weight_decay=1e-3, tolerance=1e-4) for _ in range(2))
    assert torch.equal(exact.weight, again.weight)
    used = []

    def coarse():
        used.append(True)
        return quick_products()

    monkeypatch.setattr("fgsynth.latent.probe.solver.SMALL", 0)
    monkeypatch.setattr("fgsynth.latent.probe.solver.quick_products", coarse)
    quick = fit_probe(features, label, counts, weight_decay=1e-3, tolerance=1e-4)
    assert quick.converged
    assert 3 < len(used) < quick.passes
    assert quick.objective == pytest.approx(exact.objective, abs=1e-6)
    assert torch.equal(quick.predict(features), exact.predict(features))


def test_products_that_are_wrong_at_first_are_put_right_by_those_that_check(monkeypatch):
    objective, (weight, bias) = problem(dtype=torch.float)
    found = found_in(objective)
    right = minimise(objective, found, (weight, bias), 200, 1e-4)

    @contextlib.contextmanager
    def rounded():
        kept = objective.features.clone()
        objective.features.copy_(kept.mul(4).round().div(4))
        yield
        objective.features.copy_(kept)

    monkeypatch.setattr("fgsynth.latent.probe.solver.SMALL", 0)
    monkeypatch.setattr("fgsynth.latent.probe.solver.quick_products", rounded)
    end = minimise(objective, found, (weight, bias), 200, 1e-4)
    assert end.converged
    assert end.value == pytest.approx(right.value, abs=1e-6)


def test_some_rows_are_a_fair_part_whatever_the_order_of_the_labels(monkeypatch):
    objective, _ = problem()
    assert some_rows(objective) is objective
    monkeypatch.setattr("fgsynth.latent.probe.solver.SOME_ROWS", 200)
    label = torch.arange(4000) % 4
    some = some_rows(replace(objective, features=label[:, None].double(), label=label))
    # Every 20th row would be of class 0.
    assert some.label.bincount().min() > 30
    assert torch.equal(some.features[:, 0].long(), some.label)


def test_where_rows_are_many_the_start_is_led_near_the_optimum_and_saves_passes(monkeypatch):
    g = generator("led")
    label = torch.arange(3000) % 3
    features = 2 * torch.randn(3000, 8, generator=g) + torch.randn(3, 8, generator=g)[label]
    prior = torch.full((3,), 1 / 3).log()
    objective = replace(
        problem(dtype=torch.float, balanced=0.0)[0], features=features**3, label=label, prior=prior
    )
    found = statistics(objective.features, label, 3)
    plain = discriminant_start(objective, found)
    assert all(map(torch.equal, led_start(objective, found, 200), plain))
    monkeypatch.setattr("fgsynth.latent.probe.solver.SOME_ROWS", 500)
    led, near = led_start(objective, found, 200), discriminant_start(objective, found)
    ends = [minimise(objective, found, start, 200, 1e-4) for start in (led, near)]
    assert objective(*led)[0] < objective(*near)[0]
    assert ends[0].value == pytest.approx(ends[1].value, abs=1e-6)
    assert ends[0].passes <= ends[1].passes

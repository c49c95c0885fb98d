from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_latent_objective import HEADS, problem

from fgsynth.latent.discriminant import Statistics, discriminant, statistics
from fgsynth.latent.solver import Coordinates, centred, class_curvature, damped, discriminant_start, minimise


def found_in(objective):
    return statistics(objective.features.float(), objective.label, 3)


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
    found = Statistics(*(getattr(found_in(objective), f.name).double() for f in fields(Statistics)))
    space = Coordinates.at(objective, found, weight, bias)
    x = space.pack(weight, bias)
    slope = space.slope(*objective(*space.unpack(x))[1:])
    direction = np.random.default_rng(0).normal(size=len(x))
    h = 1e-5
    ends = [objective(*space.unpack(x + sign * h * direction))[0] for sign in (1, -1)]
    assert slope @ direction == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5)


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

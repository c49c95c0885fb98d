from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_features import problem
from torch.nn.functional import cross_entropy

from fgsynth.latent.probe.objective import cross_entropy_and_slope


@pytest.mark.parametrize("weight_decay", [0.05, 0.0])
def test_gradient_agrees_with_finite_differences(weight_decay):
    objective, (weight, bias) = problem(weight_decay)
    _, slope, slope_b = objective(weight, bias)
    h = 1e-6
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            step = torch.zeros_like(weight)
            step[i, j] = h
            difference = objective(weight + step, bias)[0] - objective(weight - step, bias)[0]
            assert float(slope[i, j]) == pytest.approx(difference / (2 * h), abs=1e-7)
    for j in range(len(bias)):
        step = torch.zeros_like(bias)
        step[j] = h
        difference = objective(weight, bias + step)[0] - objective(weight, bias - step)[0]
        assert float(slope_b[j]) == pytest.approx(difference / (2 * h), abs=1e-7)


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_value_is_cross_entropy_plus_weight_decay_on_the_weight_alone(decay, seed):
    objective, (weight, bias) = problem(decay, seed)
    logits = objective.features @ weight + bias
    expected = cross_entropy(logits, objective.label) + decay * weight.square().sum()
    assert objective(weight, bias)[0] == pytest.approx(float(expected), rel=1e-12)


def test_chunks_do_not_change_the_objective(monkeypatch):
    objective, at = problem()
    whole = objective(*at)
    monkeypatch.setattr("fgsynth.latent.probe.objective.CHUNK", 7)
    cut = objective(*at)
    assert cut[0] == pytest.approx(whole[0], rel=1e-12)
    torch.testing.assert_close(cut[1:], whole[1:])


def test_extreme_logits_stay_finite():
    value, slope = cross_entropy_and_slope(torch.tensor([[1e4, -1e4], [1e4, -1e4]]), torch.tensor([0, 1]))
    assert value == 2e4
    assert slope.tolist() == [[0.0, 0.0], [1.0, -1.0]]


def test_weights_of_rows_are_how_often_they_stand_there():
    objective, at = problem()
    often = torch.arange(40) % 3
    repeated = replace(
        objective,
        features=objective.features.repeat_interleave(often, 0),
        label=objective.label.repeat_interleave(often),
    )
    weighted = replace(objective, share=(often / often.double().mean())[:, None])
    expected, found = repeated(*at), weighted(*at)
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    torch.testing.assert_close(found[1:], expected[1:])

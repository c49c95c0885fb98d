import pytest
import torch
from tiny_features import feature_set

from fgsynth.latent.study import comparison, sweeps
from fgsynth.latent.study.comparison import Draw


@pytest.fixture(scope="module")
def draw():
    return Draw(comparison.scaled(feature_set()), 0, [0.01, 0.1], updates=20)


def test_few_shot_sets_keep_the_head_and_the_held_out():
    data = feature_set()
    fewer = sweeps.few_shot(data, 3, seed=0)
    assert fewer.counts().tolist() == [120, 3, 3]
    assert (fewer.split == "test").sum() == (data.split == "test").sum()
    more = sweeps.few_shot(data, 20, seed=0)
    assert more.counts().tolist() == [120, 20, 20]  # beyond what the tail had


def test_curves_have_a_row_per_point(draw):
    amounts = sweeps.amounts(draw, ["class gaussian"], [0.5, 2.0])
    assert list(amounts["amount"]) == [0, 0.5, 2]
    shots = sweeps.shots(draw, ["class gaussian"], [2, 5])
    assert list(shots["shots"]) == [2] * 5 + [5] * 5


def test_fine_tuning_starts_at_the_probe_of_the_networks_own_features(draw):
    x, y = draw.data.part("train")
    weight, bias = sweeps._probe_of(draw, lambda z: 7 * z - 3, x, y)
    probe = draw.probe(x, y, (1.0,))[0]
    torch.testing.assert_close((7 * x - 3) @ weight + bias, probe.logits(x), atol=0.05, rtol=0)

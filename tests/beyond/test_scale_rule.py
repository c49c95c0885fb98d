from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_bench import bench, no_generator
from torch import nn

from fgsynth.beyond import scale_rule
from fgsynth.beyond.scale_rule import (
    class_probability,
    feedback_scales,
    held_out,
    monotone,
    read_off,
    shrunk,
    weighted,
)
from fgsynth.config.schema import Groups, Sampling
from fgsynth.data import mini
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate import compose
from fgsynth.generate.generator import Generator
from fgsynth.generate.plan import Method
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.models.networks import small, with_last_layer
from fgsynth.pretrain.files import FOLDER
from fgsynth.train.recipe import Recipe
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import stable_seed

GROUPS = Groups(n_max=4, n_min=1, empty=4, held_out=3, classes=2, modes=(0.5, 0.5))
SAMPLING = Sampling(
    generator=str(FOLDER), n_steps=2, every=1, through_network=False, cfg=3.0, cfg_text=1.5, noise_level=0,
    dropout=0.5, scales={"entropy": 0.1, "loss": 0.2, "hardness": 0.3, "combined": 0.4}, fill_to=2,
)  # fmt: skip
RECIPE = Recipe(network="thin", epochs=1, updates_per_epoch=2, batch=8, balanced=0.0)
GUIDED = Method(dropout=0.5, criteria=("entropy",), scale=0.7)
GRID = (0.0, 0.1, 0.2, 0.4)


def tiny(**changes):
    of = bench({"train": (4, 3, 2, 1), "val": (1, 1, 1, 1)}, ("dim", "rock"))
    given = {"bench": of, "generator": no_generator(), "sampling": None, "recipe": RECIPE, "work": None}
    return Experiment(**{**given, **changes})


@pytest.fixture
def curves(monkeypatch):
    """Pilots by hand: of class 0 and 1 at each scale, two equal images each."""

    def given(*by_scale):
        found = [[np.full(2, value) for value in pair] for pair in by_scale]
        monkeypatch.setattr(scale_rule, "pilot", lambda *asked: found)
        monkeypatch.setattr(scale_rule, "held_out", lambda exp: None)

    return given


def test_isotonic_regression_joins_what_rises():
    found = monotone(GRID, np.array([0.8, 0.9, 0.5, 0.6]))
    np.testing.assert_allclose(found, [0.85, 0.85, 0.55, 0.55])
    np.testing.assert_allclose(monotone(GRID, np.array([0.9, 0.8, 0.3, 0.1])), [0.9, 0.8, 0.3, 0.1])


@pytest.mark.parametrize(
    ("level", "w"), [(0.95, 0.1), (0.9, 0.125), (0.75, 0.2), (0.6, 0.32), (0.5, 0.4), (0.4, 0.4)]
)
def test_the_scale_is_read_off_between_grid_points(level, w):
    curve = np.array([0.8, 0.76, 0.6, 0.4])  # 1, 0.95, 0.75 and 0.5 times the first
    # A hair above the level, as 0.95 * 0.8 and 0.76 differ by rounding.
    assert read_off(GRID, curve, level + 1e-9) == pytest.approx(w, abs=1e-6)


def test_a_curve_that_never_falls_gets_the_largest_scale_and_one_of_nothing_none():
    assert read_off(GRID, np.full(4, 0.5), 0.9) == 0.4
    assert read_off(GRID, np.zeros(4), 0.9) == 0.0


def test_shrinkage_by_hand():
    """MSB 1, MSW 1/9: what differs within classes is a ninth of what differs between them."""
    hits = [np.array(one, dtype=float) for one in ([1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0])]
    np.testing.assert_allclose(shrunk(hits), [0.5 + 4 / 9, 0.5 - 4 / 9, 0.5])


def test_shrinkage_is_the_mean_of_a_beta_posterior():
    hits = [np.array(one, dtype=float) for one in ([1, 1, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1])]
    r, n = np.array([one.mean() for one in hits]), 4
    between, within = n * r.var(ddof=1), 1.5 / 9
    rho = (between - within) / (between + (n - 1) * within)
    strength = 1 / rho - 1
    expected = (n * r + strength * r.mean()) / (n + strength)
    np.testing.assert_allclose(shrunk(hits), expected)


def test_classes_that_differ_by_chance_only_get_the_mean():
    found = shrunk([np.array([1.0, 1, 0, 0]), np.array([1.0, 0, 0, 0])])
    np.testing.assert_allclose(found, [0.375, 0.375])
    np.testing.assert_allclose(shrunk([np.ones(3), np.ones(3)]), [1, 1])


def test_a_class_of_more_images_is_shrunk_less():
    many, few = np.tile([1.0, 1, 1, 0], 4), np.array([0.0, 0, 0, 1])
    r, m = np.array([0.75, 0.25]), 0.5
    left = (shrunk([many, few]) - m) / (r - m)
    assert 0 < left[1] < left[0] < 1


def test_scales_become_weights_of_the_largest():
    made = weighted(GUIDED, (0.1, 0.2, 0.0))
    assert (made.scale, made.weights) == (0.2, (0.5, 1.0, 0.0))
    assert made.criteria == GUIDED.criteria
    off = weighted(GUIDED, (0.0, 0.0))
    assert (off.scale, off.weights) == (0.0, (1.0, 1.0))


def test_every_group_has_the_scale_of_its_class(curves):
    curves((1.0, 0.6), (0.8, 0.6), (0.5, 0.6))
    rule = feedback_scales(tiny(), GUIDED, (0, 0.1, 0.2), per_group=3, level=0.9)
    assert rule.scales == pytest.approx((0.05, 0.05, 0.2, 0.2))
    assert (rule.method.scale, rule.method.weights) == (0.2, pytest.approx((0.25, 0.25, 1, 1)))
    assert rule.n_pilot == 3 * 3 * 4
    assert rule.table["class"].tolist() == ["ant"] * 3 + ["bee"] * 3
    assert rule.table["w"].tolist() == [0, 0.1, 0.2] * 2
    assert rule.table["raw"].tolist() == pytest.approx([1, 0.8, 0.5, 0.6, 0.6, 0.6])
    assert rule.table["recognised"].tolist() == pytest.approx(rule.table["raw"].tolist())


def test_a_lower_level_allows_a_larger_scale(curves):
    curves((0.9, 0.8), (0.6, 0.7), (0.3, 0.6), (0.1, 0.2))
    exp = tiny()
    found = [feedback_scales(exp, GUIDED, GRID, 2, level).scales for level in (0.9, 0.7, 0.5)]
    for one, next_one in pairwise(found):
        assert all(a < b for a, b in zip(one, next_one, strict=True))


def test_what_cannot_be_asked_is_said(curves):
    curves((0.9, 0.8), (0.6, 0.7))
    for grid in ((0.1, 0.2), (0,), (0, 0.2, 0.1)):
        with pytest.raises(UserError, match="give 0 and at least one larger, rising"):
            feedback_scales(tiny(), GUIDED, grid, 2, 0.9)
    with pytest.raises(UserError, match="Class 1 has fewer than two pilot images"):
        shrunk([np.ones(2), np.ones(1)])


def test_the_probability_is_that_of_the_class_asked_for():
    layer = nn.Linear(128, 2)
    layer.weight.data.zero_()
    layer.bias.data = torch.tensor([0.0, 1.0])
    x = torch.zeros(3, 32, 32, 3, dtype=torch.uint8)
    made = SyntheticSet(pd.DataFrame({"label": [0, 1, 1]}), x, "three")
    found = class_probability(tiny(), made, with_last_layer(small(2, 0), layer))
    sure = np.e / (1 + np.e)
    np.testing.assert_allclose(found, [1 - sure, sure, sure], rtol=1e-6)


@pytest.fixture
def exp(root, tmp_path):
    unclip = Generator.load(root / FOLDER, SAMPLING.n_steps)
    return Experiment(mini.nicopp(GROUPS), unclip, SAMPLING, RECIPE, tmp_path)


def test_the_held_out_classifier_is_trained_by_balanced_softmax_and_is_not_the_guide(exp):
    estimate = held_out(exp).state_dict()
    folder = exp.trainings.folder(replace(RECIPE, balanced=1.0), stable_seed("held out", exp.seed))
    assert (folder / "network.safetensors").is_file()
    assert not all(torch.equal(estimate[key], value) for key, value in exp.guide.state_dict().items())


def test_pilots_are_paired_and_the_method_that_is_found_makes_images(exp, monkeypatch):
    asked, real = [], compose.synthesise

    def counting(generator, plan, cfg, feedback, **options):
        asked.append((plan.seeds, feedback.guidance.scale if feedback else 0.0))
        return real(generator, plan, cfg, feedback, **options)

    monkeypatch.setattr(compose, "synthesise", counting)
    rule = feedback_scales(exp, GUIDED, (0, 0.3), 1, 0.9)
    (plain, off), (guided, w) = asked
    assert plain == guided
    assert (off, w) == (0.0, 0.3)
    assert rule.n_pilot == len(plain) + len(guided) == 24
    assert len(rule.scales) == len(rule.method.weights) == 12
    assert all(0 <= scale <= 0.3 for scale in rule.scales)
    made = exp.synthetic(rule.method, per_group=np.ones(12, dtype=np.int64))
    assert made.index["seed"].tolist() == plain
    assert rule.table["recognised"].between(0, 1).all()
    for _, one in rule.table.groupby("class"):
        assert one["recognised"].is_monotonic_decreasing

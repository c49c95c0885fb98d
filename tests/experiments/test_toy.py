import pandas as pd
import pytest
import torch

from fgsynth.experiments import toy
from fgsynth.guidance.feedback import Guidance


@pytest.fixture(scope="module")
def trained():
    return toy.train(0, 500, 300, 10)


def test_points_have_the_shares_they_should():
    points = toy.draw_points(20_000, 0.1, 0)
    for c in (0, 1):
        mine = points.y == c
        assert points.minority[mine].float().mean() == pytest.approx(0.1, abs=0.01)
        torch.testing.assert_close(
            points.x[mine & points.minority].mean(0), toy.MODES[c, 1], atol=0.03, rtol=0
        )
    assert not torch.equal(points.x, toy.draw_points(20_000, 0.1, 1).x)
    assert torch.equal(points.x, toy.draw_points(20_000, 0.1, 0).x)


def test_early_stopped_boundary_cuts_the_minority_modes_and_training_on_would_not():
    points, test = toy.draw_points(2000, 0.1, 0), toy.draw_points(5000, 0.5, "test")
    early, late = toy.train_linear(points.x, points.y, 10), toy.train_linear(points.x, points.y, 3000)
    cut, free = (toy.measure_classifier(c, test) for c in (early, late))
    assert 40 < cut["minority_accuracy"] < 80
    assert cut["majority_accuracy"] > 99
    assert free["minority_accuracy"] > 99
    assert free["boundary_tilt"] < cut["boundary_tilt"]


def test_training_is_repeatable(trained):
    again = toy.train(0, 500, 300, 10)
    for a, b in zip(trained.denoiser.parameters(), again.denoiser.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("criterion", ["entropy", "loss", "hardness"])
def test_a_sample_does_not_depend_on_how_many_are_drawn(trained, criterion):
    many, _ = toy.synthesise(trained, criterion, Guidance(0.1), 40, 10)
    few, _ = toy.synthesise(trained, criterion, Guidance(0.1), 6, 10)
    torch.testing.assert_close(few, many[:6], rtol=1e-4, atol=1e-4)


def test_measures_on_hand_made_samples():
    x = torch.cat([toy.MODES[0], toy.MODES[1], torch.zeros(1, 2), toy.MODES[1, :1]])
    y = torch.tensor([0, 0, 1, 1, 0, 0])
    measured = toy.measure_samples(x, y)
    assert measured["minority_share"] == pytest.approx(100 * 2 / 6)
    assert measured["on_support"] == pytest.approx(100 * 4 / 6)  # the origin and a mode of the other class


def test_frames_are_the_samples_of_every_setting_and_the_boundary_after_them(trained):
    frames = toy.frames(trained, [0.0, 0.1, 0.3], [1, 5], 8, 10)
    assert len(frames) == 1 + 3 * 2 * 2
    assert frames.loc[0, ["w", "criterion"]].tolist() == [0.0, "entropy"]
    row = frames[(frames["criterion"] == "loss") & (frames["every"] == 5) & (frames["w"] == 0.3)].iloc[0]
    x, y = toy.synthesise(trained, "loss", Guidance(0.3, every=5), 8, 10)
    points = torch.tensor([int(v) for v in row["points"].split()]).view(8, 2) / 100
    torch.testing.assert_close(points, x, atol=0.0051, rtol=0)
    assert row["minority_share"] == toy.measure_samples(x, y)["minority_share"]
    after = toy.train_linear(*toy.joined(trained.real, x, y), trained.epochs)
    logit = after(x)[0].diff(dim=1)[:, 0]
    line = torch.tensor(row[["b0", "b1", "b2"]].tolist(), dtype=torch.float32)
    torch.testing.assert_close(x @ line[:2] + line[2], logit)


def test_choice_takes_the_largest_scale_on_the_data():
    sweep = pd.DataFrame(
        {"criterion": "entropy", "scale": [0.0, 0.1, 0.2, 0.3], "on_support": [98.0, 97.0, 93.5, 92.0]}
    )
    assert toy.choose_scale(sweep, "entropy") == 0.2


def test_compare_and_named_methods(trained):
    methods = [(c, Guidance(w)) for c in ("entropy", "loss", "hardness") for w in (0.0, 0.1)]
    rows = toy.compare(trained, methods, 60, 10)
    assert len(rows) == 2 + len(methods)
    named = toy.named_methods(rows, {"entropy": 0.1, "loss": 0.0, "hardness": 0.1})
    assert sorted(named["method"]) == [
        "DDPM", "DDPM-FG (Entropy)", "DDPM-FG (Hardness)", "DDPM-FG (Loss)", "balanced real", "real only"
    ]  # fmt: skip
    by_name = named.set_index("method")
    assert by_name.loc["balanced real", "minority_accuracy"] > by_name.loc["real only", "minority_accuracy"]
    assert pd.isna(by_name.loc["real only", "minority_share"])

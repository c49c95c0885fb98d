import pandas as pd
import pytest
import torch

from fgsynth.latent import speed


@pytest.fixture(scope="module")
def table():
    return speed.small(k=12, n_max=300, n_classes=4)


def test_the_world_has_the_means_and_the_spread_that_it_says():
    world = speed.World.drawn(10, 6, seed=0, separation=1.0)
    e, y = world.features(torch.full((10,), 3000), seed=1)
    for c in range(10):
        torch.testing.assert_close(e[y == c].mean(0), world.means[c], atol=0.1, rtol=0)
        torch.testing.assert_close(e[y == c].std(0), world.spread, atol=0.05, rtol=0.05)
    near = (world.means[0] - world.means[1]).norm()
    assert near < (world.means[:5].mean(0) - world.means[5:].mean(0)).norm()
    assert torch.equal(e, world.features(torch.full((10,), 3000), seed=1)[0])


def test_every_method_is_timed_and_scored(table):
    assert len(table) == 5
    assert table.notna().all().all()
    assert (table["fit_seconds"] > 0).all()
    assert table["accuracy"].between(25, 100).all()
    assert (table["sampling_seconds"] > 0).tolist() == [True, True, True, False, False]


def test_probe_and_logistic_regression_minimise_the_same(table):
    ours, theirs = table["objective"].iloc[:2]
    assert ours == pytest.approx(theirs, abs=1e-3)


def test_blocks_of_the_large_size_are_extrapolated():
    size = speed.large(k=8, n_max=300, n_classes=5, rows=300, blocks=2)
    assert size["blocks"] == 5
    assert 100 < size["rows"] < 600
    assert 0 < size["peak_gib"] < 8
    assert size["epoch_seconds"] >= 5 * size["sgd_block_seconds"] / 2 > 0


def test_it_is_written_down(tmp_path, monkeypatch, table):
    size = dict.fromkeys(
        ("real", "blocks", "rows", "fit_sampler_seconds", "sample_block_seconds", "sgd_block_seconds"), 1.0
    ) | {"epoch_seconds": 2.0, "peak_gib": 3.0}
    monkeypatch.setattr(speed, "small", lambda: table)
    monkeypatch.setattr(speed, "large", lambda blocks: size)
    text = speed.run(tmp_path)
    assert (tmp_path / "latent_speed.txt").read_text() == text + "\n"
    assert "times as fast as LogisticRegression" in text
    assert "threads, torch" in text
    assert pd.read_csv(tmp_path / "latent_speed.csv")["method"].tolist() == table["method"].tolist()

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from fgsynth.data.sources import Images
from fgsynth.train.losses import balanced_softmax, prior_counts
from fgsynth.train.ranks import Ranks
from fgsynth.train.recipe import Compute, Recipe
from fgsynth.train.run_folder import load
from fgsynth.train.train import check_divisible, outputs, predict, train
from fgsynth.utils.errors import UserError

COLOURS = torch.tensor([[200, 60, 60], [60, 200, 60], [60, 60, 200]])
RECIPE = Recipe(epochs=2, updates_per_epoch=12, batch=16, augment=("flip",))
BRIEF = replace(RECIPE, epochs=1, updates_per_epoch=3, batch=8)


def images(counts=(12, 12, 12), seed=0, spread=40):
    """Noisy images of one colour per class."""
    label = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    noise = torch.randn(len(label), 32, 32, 3, generator=torch.Generator().manual_seed(seed))
    return Images((COLOURS[label][:, None, None] + spread * noise).clamp(0, 255).to(torch.uint8), label)


class Files:
    """Images that are opened one by one."""

    def __init__(self, inner):
        self.inner, self.label = inner, inner.label

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, i):
        return self.inner[i]


REAL = images()
MADE = images((5, 10, 15), seed=1)


def same(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_it_learns_is_frozen_and_keeps_a_history(monkeypatch):
    monkeypatch.setattr("fgsynth.train.train.AT_ONCE", 7)
    state = torch.get_rng_state()
    trained = train(REAL, MADE, 3, RECIPE, 0, val=images(seed=2), device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert (predict(trained.network, images(seed=3)).argmax(1) == REAL.label).all()
    assert not trained.network.training
    assert not any(p.requires_grad for p in trained.network.parameters())
    h = trained.history
    assert h["epoch"].tolist() == [1, 2]
    assert h["updates"].tolist() == [12, 24]
    assert h["loss"].iloc[1] < h["loss"].iloc[0]
    assert h["rate"].iloc[1] < h["rate"].iloc[0]
    assert ((h["data_seconds"] > 0) & (h["data_seconds"] < h["seconds"])).all()
    assert trained.average_val == h["val_overall"].iloc[-1] == 100
    assert (trained.select, trained.epoch) == ("last", 2)


def test_the_seed_decides_everything():
    first, again, other = (train(REAL, MADE, 3, BRIEF, seed, device="cpu").network for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)


def test_prior_counts_by_hand():
    real, made = torch.tensor([6, 2]), torch.tensor([1, 9])
    assert prior_counts("real", real, made).tolist() == [6, 2]
    assert prior_counts("real+synthetic", real, made).tolist() == [7, 11]
    # 3/4 of the batch from shares 6/8 and 2/8, 1/4 from 1/10 and 9/10.
    assert prior_counts("batch", real, made, 0.75).tolist() == pytest.approx([0.5875, 0.4125])
    for kind in ("real", "real+synthetic", "batch"):
        assert prior_counts(kind, real).tolist() == [6, 2]
    with pytest.raises(UserError, match="Class 1 has no images by counts 'real'"):
        prior_counts("real", torch.tensor([3, 0]), made)
    assert prior_counts("batch", torch.tensor([3, 0]), made).tolist() == pytest.approx([0.55, 0.45])


def test_losses_one_by_one_have_the_mean():
    logits, label, counts = torch.randn(6, 4), torch.arange(6) % 4, torch.tensor([9, 3, 2, 1])
    each = balanced_softmax(logits, label, counts, 0.3, "none")
    assert each.shape == (6,)
    torch.testing.assert_close(each.mean(), balanced_softmax(logits, label, counts, 0.3))


def test_balanced_softmax_helps_the_rare_class():
    rare, test = images((40, 40, 3), spread=300), images((20, 20, 40), seed=4, spread=300)
    balanced, plain = (
        (
            predict(train(rare, None, 3, replace(RECIPE, balanced=b), 0).network, test).softmax(1)[40:, 2]
        ).mean()
        for b in (1.0, 0.0)
    )
    assert balanced > plain + 0.05


def test_the_best_epoch_by_average_validation_is_kept(monkeypatch):
    values = iter([50.0, 70.0, 70.0])
    monkeypatch.setattr(
        "fgsynth.train.train.long_tail_accuracy",
        lambda *_: dict.fromkeys(("many", "medium", "few"), 0.0) | {"overall": next(values)},
    )
    kept = []
    monkeypatch.setattr(
        "fgsynth.train.train.predict",
        lambda n, *_, **__: kept.append(n.state_dict()["network.fc.bias"].clone()) or F.one_hot(REAL.label),
    )
    recipe = replace(BRIEF, epochs=3, select="best_average_val")
    trained = train(REAL, None, 3, recipe, 0, val=REAL, device="cpu")
    assert (trained.epoch, trained.average_val) == (2, 70)
    assert torch.equal(trained.network.network.fc.bias, kept[1])
    assert not torch.equal(kept[1], kept[2])


def test_a_finished_folder_is_loaded_and_another_recipe_refused(tmp_path, monkeypatch):
    first = train(REAL, MADE, 3, BRIEF, 0, val=REAL, folder=tmp_path, device="cpu")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epochs.csv", "network.safetensors", "recipe.json"]
    record = json.loads((tmp_path / "recipe.json").read_text())
    assert record["counts_used"] == [12, 12, 12]
    assert (record["updates_per_epoch"], record["real_per_batch"]) == (3, 4)
    with monkeypatch.context() as m:
        m.setattr("fgsynth.train.train._run", None)
        again = train(REAL, MADE, 3, BRIEF, 0, val=REAL, folder=tmp_path, device="cpu")
    assert same(first.network, again.network)
    assert torch.equal(predict(first.network, MADE), predict(load(tmp_path).network, MADE))
    pd.testing.assert_frame_equal(first.history, again.history)
    for other, seed, what in ((replace(BRIEF, rate=1e-3), 0, "recipe"), (BRIEF, 1, "seed")):
        with pytest.raises(UserError, match=rf"recipe.json is of another training \({what} differs\)"):
            train(REAL, MADE, 3, other, seed, val=REAL, folder=tmp_path, device="cpu")
    with pytest.raises(UserError, match="images differs"):
        train(REAL, images((5, 10, 15), seed=9), 3, BRIEF, 0, val=REAL, folder=tmp_path, device="cpu")
    (tmp_path / "network.safetensors").unlink()
    with pytest.raises(UserError, match="holds no finished training"):
        load(tmp_path)
    assert same(
        first.network, train(REAL, MADE, 3, BRIEF, 0, val=REAL, folder=tmp_path, device="cpu").network
    )


def test_a_loss_that_is_not_finite_stops_with_a_sentence():
    wild = replace(BRIEF, rate=1e30, updates_per_epoch=9, optimiser="sgd", warmup=0)
    with pytest.raises(UserError, match=r"The loss is (nan|inf) at update \d: lower the rate \(1e\+30 now\)"):
        train(REAL, None, 3, wild, 0)


def test_what_cannot_be_trained_on_is_named():
    with pytest.raises(UserError, match="Class 3 has no images by counts 'real'"):
        train(REAL, None, 4, BRIEF, 0)
    with pytest.raises(UserError, match="synthetic set has label 2, but labels of 2 classes go from 0 to 1"):
        train(images((4, 4)), MADE, 2, BRIEF, 0)
    with pytest.raises(UserError, match="select 'best_average_val' needs validation images"):
        train(REAL, None, 3, replace(BRIEF, select="best_average_val"), 0)
    with pytest.raises(UserError, match="synthetic set has no images"):
        train(REAL, Images(MADE.x[:0], MADE.label[:0]), 3, BRIEF, 0)


def test_a_share_without_an_image_is_refused():
    with pytest.raises(
        UserError, match="a batch of 8 has no image for each of 1 processes times 9 micro-batc"
    ):
        train(REAL, None, 3, BRIEF, 0, compute=Compute(accumulate=9))
    four = Ranks(1, 4, torch.device("cpu"))
    with pytest.raises(UserError, match="validation set has 3 images for 4 processes"):
        check_divisible(BRIEF, Compute(accumulate=2), four, images((1, 1, 1)))
    with pytest.raises(UserError, match="no image for each of 4 processes times 3"):
        check_divisible(BRIEF, Compute(accumulate=3), four, None)


def test_how_it_was_computed_is_told_and_does_not_make_it_another_training(tmp_path):
    first = train(REAL, None, 3, BRIEF, 0, folder=tmp_path, device="cpu", compute=Compute("bf16", 2))
    told = json.loads((tmp_path / "recipe.json").read_text())["compute"]
    assert told == {"device": "cpu", "processes": 1, "precision": "bf16", "accumulate": 2}
    assert same(first.network, train(REAL, None, 3, BRIEF, 0, folder=tmp_path, device="cpu").network)


def test_networks_of_timm_are_trained_on_files_of_any_size():
    recipe = replace(BRIEF, network="test_vit", side=160, augment=("crop",))
    network = train(Files(REAL), MADE, 3, recipe, 0, device="cpu").network
    logits, embedding = outputs(network, Files(MADE), side=160)
    assert logits.shape == (30, 3)
    assert embedding.shape[0] == 30

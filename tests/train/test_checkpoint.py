import os
import signal
from dataclasses import replace

import pandas as pd
import pytest
import torch

from fgsynth.data.sources import Images
from fgsynth.train import checkpoint, train
from fgsynth.train.recipe import Compute, Recipe
from fgsynth.utils.cache import weights_digest
from fgsynth.utils.errors import UserError
from fgsynth.utils.interrupts import Stopped

RECIPE = Recipe(network="slim", epochs=3, updates_per_epoch=5, batch=8)
EVERY = Compute(checkpoint=0)


class Source:
    """Images opened one by one; at the n-th something happens."""

    def __init__(self, n, seed=0):
        draw = torch.Generator().manual_seed(seed)
        self.x = torch.randint(0, 256, (n, 32, 32, 3), dtype=torch.uint8, generator=draw)
        self.label, self.opened, self.at = torch.arange(n) % 3, 0, {}

    def __len__(self):
        return len(self.label)

    def __getitem__(self, i):
        self.opened += 1
        self.at.get(self.opened, lambda: None)()
        return self.x[i], int(self.label[i])


class Killed(BaseException):
    """Ends a run as SIGKILL does: nothing catches it."""


def kill():
    raise Killed


def run(folder, at=None, recipe=RECIPE, compute=EVERY, seed=0):
    real = Source(24)
    real.at = at or {}
    val = Images(Source(9, 1).x, Source(9, 1).label)
    return train.train(real, None, 3, recipe, seed, val=val, folder=folder, device="cpu", compute=compute)


def equal(a, b):
    times = ["seconds", "data_seconds"]
    pd.testing.assert_frame_equal(a.history.drop(columns=times), b.history.drop(columns=times))
    return weights_digest(a.network) == weights_digest(b.network)


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        replace(RECIPE, optimiser="sgd", select="best_average_val"),
        replace(RECIPE, network="test_resnet"),
    ],
)
def test_a_killed_training_ends_as_an_undisturbed_one(recipe, tmp_path):
    undisturbed = run(tmp_path / "whole", recipe=recipe)
    # In the third epoch and, when it goes on from the second, at once again.
    for at in (2 * 40 + 3, 1):
        with pytest.raises(Killed):
            run(tmp_path / "run", {at: kill}, recipe)
        assert checkpoint.read(tmp_path / "run")["done"] == 10
    again = run(tmp_path / "run", recipe=recipe)
    assert equal(undisturbed, again)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "epochs.csv", "network.safetensors", "recipe.json",
    ]  # fmt: skip


def test_dropout_goes_on_where_it_was(tmp_path, monkeypatch):
    created = train.Fit.__init__

    def with_dropout(self, *arguments):
        created(self, *arguments)
        self.network.network.drop_rate = 0.5

    monkeypatch.setattr(train.Fit, "__init__", with_dropout)
    with pytest.raises(Killed):
        run(tmp_path / "run", {2 * 40 + 3: kill})
    assert equal(run(tmp_path / "whole"), run(tmp_path / "run"))


def test_a_stopped_training_keeps_the_update_it_is_in(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match=r"stopped after update 7 of 15 in .*run, then give the same command"):
        run(tmp_path / "run", {6 * 8 + 3: lambda: os.kill(os.getpid(), signal.SIGTERM)}, compute=Compute())
    assert signal.getsignal(signal.SIGTERM) == before
    assert equal(run(tmp_path / "whole"), run(tmp_path / "run"))


def test_a_request_at_the_end_is_not_lost(tmp_path):
    with pytest.raises(Stopped, match="was finished, then give the same command"):
        run(tmp_path, {14 * 8 + 3: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    assert train.finished(tmp_path)


def test_a_short_training_writes_no_checkpoint(tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, {2 * 40 + 3: kill}, compute=Compute())
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_named(tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, {2 * 40 + 3: kill})
    with pytest.raises(UserError, match=r"training.checkpoint is of another training \(seed differs\)"):
        run(tmp_path, seed=1)
    path = tmp_path / checkpoint.NAME
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"training.checkpoint is damaged: remove it"):
        run(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"training.checkpoint is damaged: remove it"):
        checkpoint.read(tmp_path)


def test_what_a_killed_writer_left_goes_with_the_checkpoint(tmp_path):
    (tmp_path / ".partial-x.checkpoint").touch()
    (tmp_path / ".partial-x.csv").touch()
    checkpoint.write(tmp_path, {"x": {"y": torch.ones(2, 3).T}, "best": float("-inf")})
    found = checkpoint.read(tmp_path)
    assert torch.equal(found["x"]["y"], torch.ones(3, 2))
    assert found["best"] == float("-inf")
    checkpoint.remove(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".partial-x.csv"]

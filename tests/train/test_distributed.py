"""Two gloo processes on the CPU against one, on a network without batch norm."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch

from fgsynth.data.sources import Images
from fgsynth.train import checkpoint, launch, train
from fgsynth.train.launch import together
from fgsynth.train.recipe import Compute, Recipe
from fgsynth.utils.cache import weights_digest
from fgsynth.utils.errors import UserError

RECIPE = Recipe(
    **dict(network="test_convnext", optimiser="sgd", rate=0.01, epochs=3, updates_per_epoch=4, batch=15),
    select="best_average_val",
)
COMPUTE = Compute(accumulate=2, checkpoint=0)


def images(n, seed):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, 32, 32, 3), dtype=torch.uint8, generator=draw)
    return Images(x, torch.arange(n) % 3)


REAL, MADE, VAL = images(36, 0), images(30, 1), images(31, 2)


def run(folder, **kwargs):
    return train.train(
        REAL, MADE, 3, RECIPE, 0, val=VAL, folder=folder, device="cpu", compute=COMPUTE, **kwargs
    )


def watched(folder, dies=False):
    """A training in one of several processes, which tells who wrote and what it returned."""
    rank, store, validated = os.environ["RANK"], train.store, train.validation_row
    epochs = iter(range(3))

    def telling(*arguments):
        (folder / f"written by {rank}").touch()
        store(*arguments)

    def dying(*arguments):
        if next(epochs) == 2 and rank == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return validated(*arguments)

    train.store = telling
    train.validation_row = dying if dies else validated
    trained = run(folder / "run")
    (folder / f"digest of {rank}").write_text(weights_digest(trained.network))
    train.store, train.validation_row = store, validated


def same(a, b):
    for key, value in a.state_dict().items():
        torch.testing.assert_close(value, b.state_dict()[key], rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Folders of two trainings by two processes, of which the second dies in the last epoch of the second."""
    whole, dead = (tmp_path_factory.mktemp(name) for name in ("whole", "dead"))
    with pytest.raises(UserError, match="Process 1 of 2 died by SIGKILL"):
        together(lambda: (watched(whole), watched(dead, dies=True)), 2)
    return whole, dead


def test_two_processes_train_the_network_of_one(alone, pair):
    folder, _ = pair
    there = sorted(path.name for path in folder.iterdir())
    assert there == ["digest of 0", "digest of 1", "run", "written by 0"]
    files = sorted(path.name for path in (folder / "run").iterdir())
    assert files == ["epochs.csv", "network.safetensors", "recipe.json"]
    record = json.loads((folder / "run/recipe.json").read_text())
    assert record["compute"] == {"device": "cpu", "processes": 2, "precision": "no", "accumulate": 2}
    trained = run(folder / "run")
    assert {(folder / f"digest of {i}").read_text() for i in (0, 1)} == {weights_digest(trained.network)}
    same(alone.network, trained.network)
    for name in ("updates", "loss", "rate", "val_overall"):
        assert trained.history[name].tolist() == pytest.approx(alone.history[name].tolist(), abs=1e-5)


def test_of_two_processes_one_dies_and_one_process_goes_on(alone, pair):
    _, folder = pair
    found = checkpoint.read(folder / "run")
    assert (found["done"], len(found["random"])) == (8, 2)
    same(alone.network, run(folder / "run").network)
    assert not (folder / "run" / checkpoint.NAME).exists()


@pytest.fixture
def launched(monkeypatch):
    """Launches that would be made."""
    made = []
    monkeypatch.setattr(launch, "together", lambda work, n: made.append(n))
    monkeypatch.setattr(launch, "apart", lambda function, items, n, bar: made.append((items, n)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(train, "counted", here)
    return made


class Here(Exception):
    """The training in this process begins."""


def here(*_):
    raise Here


def test_a_large_network_is_trained_on_all_gpus(launched, tmp_path, monkeypatch):
    def ask(recipe=RECIPE, folder=tmp_path, processes=None, **kwargs):
        with pytest.raises(Here):
            train.train(REAL, None, 3, recipe, 0, folder=folder, processes=processes, **kwargs)

    ask()
    ask(processes=2)
    assert launched == [4, 2]
    ask(folder=None)
    ask(processes=1)
    with pytest.raises(UserError, match="2 processes hand over their result through a folder: pass folder"):
        train.train(REAL, None, 3, RECIPE, 0, processes=2)
    ask(replace(RECIPE, network="slim"))
    ask(device="cuda:1")
    (tmp_path / "network.safetensors").touch()
    ask()
    monkeypatch.setenv("WORLD_SIZE", "4")
    ask(folder=tmp_path / "other")
    assert launched == [4, 2]


def test_as_many_jobs_as_gpus_are_shared_out_and_fewer_follow_each_other(launched, monkeypatch):
    done = []
    launch.each(done.append, range(5), "jobs")
    launch.each(done.append, range(4), "jobs")
    assert launched == [([0, 1, 2, 3, 4], 4), ([0, 1, 2, 3], 4)]
    launch.each(done.append, range(3), "jobs")
    assert done == [0, 1, 2]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    launch.each(done.append, range(3, 8), "jobs")
    assert done == list(range(8))
    assert len(launched) == 2

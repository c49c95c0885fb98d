"""Keys under which results are kept: of the contents of every set, never of its names alone."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_files import image

from fgsynth.beyond.closed_loop import loop_folder
from fgsynth.config.schema import Inversion, Sampling
from fgsynth.data.disk import folders
from fgsynth.data.sources import fingerprint
from fgsynth.experiments import experiment as module
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.generator import Generator
from fgsynth.generate.plan import Method, plan
from fgsynth.pretrain.files import FOLDER
from fgsynth.train.recipe import Recipe
from fgsynth.train.train import train
from fgsynth.utils.errors import UserError

PLAIN = Method(dropout=0.5)
RECIPE = Recipe(epochs=1, updates_per_epoch=1, batch=4, side=32)
SAMPLING = Sampling(
    generator=str(FOLDER), n_steps=2, every=1, through_network=False, cfg=3.0, cfg_text=1.5, noise_level=0,
    dropout=0.5, scales={"entropy": 0.1, "loss": 0.2, "hardness": 0.3, "combined": 0.4}, fill_to=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def unclip(root):
    return Generator.load(root / FOLDER, SAMPLING.n_steps)


@pytest.fixture
def place(tmp_path):
    """Every split has cats and dogs, all of one size."""
    for i, name in enumerate(("train", "val", "test")):
        for j, kind in enumerate(("cat", "dog")):
            for k in range(2):
                image(tmp_path / "pets" / name / kind / f"{k}.bmp", 100 * i + 10 * j + k)
    return tmp_path / "pets"


def experiment(place, unclip, on_files, side=32):
    found = folders.load(place)
    bench = found.on_files() if on_files else found.benchmark(side)
    return Experiment(bench, unclip, SAMPLING, RECIPE, place.parent / "work")


def keys(exp, monkeypatch):
    """Under what classifiers, synthetic sets, learned words and loops are kept, by what they are."""
    words = []
    monkeypatch.setattr(module, "with_learned_words", lambda *given: words.append(given[-1].name))
    exp.generator_of(replace(PLAIN, inversion=Inversion()))
    return {
        "classifier": exp.trainings.folder(RECIPE, 0).name,
        "synthetic": exp._digest(PLAIN, plan(exp.bench, np.array([1, 1]), 0)),
        "words": words[0],
        "loop": loop_folder(exp, 1, PLAIN, 0).name,
    }


def exchange(place, split):
    cat, dog = (place / split / name for name in ("cat", "dog"))
    cat.rename(place / "aside")
    dog.rename(cat)
    (place / "aside").rename(dog)


@pytest.mark.parametrize("on_files", [False, True])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_images_exchanged_under_the_same_names_have_other_keys(place, unclip, monkeypatch, split, on_files):
    before = keys(experiment(place, unclip, on_files), monkeypatch)
    assert keys(experiment(place, unclip, on_files), monkeypatch) == before
    exchange(place, split)
    after = keys(experiment(place, unclip, on_files), monkeypatch)
    assert not set(after.values()) & set(before.values())


@pytest.mark.parametrize("on_files", [False, True])
def test_a_folder_of_the_same_name_is_told_by_its_images(place, unclip, monkeypatch, on_files, tmp_path):
    before = keys(experiment(place, unclip, on_files), monkeypatch)
    other = tmp_path / "elsewhere/pets"
    shutil.copytree(place, other)
    assert keys(experiment(other, unclip, on_files), monkeypatch) == before
    image(other / "train/cat/0.bmp", 99)
    after = keys(experiment(other, unclip, on_files), monkeypatch)
    assert not set(after.values()) & set(before.values())


def test_views_of_another_size_condition_other_synthetic_images(place, unclip, monkeypatch):
    small, large = (keys(experiment(place, unclip, False, side), monkeypatch) for side in (32, 48))
    assert small["synthetic"] != large["synthetic"]


@pytest.mark.parametrize("key", ["generator", "tiny_decoder"])
def test_models_count_by_their_contents(place, unclip, monkeypatch, tmp_path, key):
    def now(name):
        exp = experiment(place, unclip, False)
        changed = SAMPLING.model_copy(update={key: str(tmp_path / name)})
        return keys(replace(exp, sampling=changed), monkeypatch)

    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_bytes(b"1")
    shutil.copytree(tmp_path / "model", tmp_path / "copy")
    before = now("model")
    assert now("copy") == before
    (tmp_path / "model/weights").write_bytes(b"2")
    assert now("model")["synthetic"] != before["synthetic"]
    assert now("model")["loop"] != before["loop"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_training_that_is_kept_is_of_these_files(place, tmp_path, split):
    def trained():
        found = folders.load(place)
        recipe = replace(RECIPE, select="best_average_val")
        return train(
            found.source("train"), None, 2, recipe, 0, val=found.source("val"), folder=tmp_path / "run"
        )

    first = trained()
    assert torch.equal(trained().network.network.conv1.weight, first.network.network.conv1.weight)
    exchange(place, split)
    with pytest.raises(UserError, match=r"recipe\.json is of another training \(images differs\)"):
        trained()


def test_stored_synthetic_images_are_told_by_their_bytes(place, unclip):
    exp = experiment(place, unclip, True)
    store, digest = exp.complete(PLAIN, per_group=np.array([1, 2]))
    stored = module.SyntheticSet.of(store, digest, in_memory=0).images
    again = module.SyntheticSet.of(store, digest, in_memory=0).images
    assert fingerprint(stored) == fingerprint(again)
    other = replace(again, sha256=again.sha256[::-1].copy())
    assert fingerprint(stored) != fingerprint(other)

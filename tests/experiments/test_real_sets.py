"""The experiments on real sets: a generator of 64 pixels, images kept at 48, classifiers that see 32."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import tiny_real
import torch
from tiny_unclip import save

from fgsynth.config.params import check_stage
from fgsynth.config.schema import LongTail
from fgsynth.config.stages import NOTEBOOKS
from fgsynth.cost import estimate
from fgsynth.data import mini, registry
from fgsynth.data.disk import real
from fgsynth.data.images import from_uint8
from fgsynth.data.sources import IN_MEMORY, ImageFiles, Images
from fgsynth.experiments import build, own_images, study
from fgsynth.experiments.build import of_world
from fgsynth.experiments.study import Row
from fgsynth.generate.generator import Generator
from fgsynth.generate.plan import Method
from fgsynth.generate.synthetic_set import StoredImages, SyntheticSet
from fgsynth.models.networks import create
from fgsynth.pipeline import notebook
from fgsynth.pipeline.runner import INJECTED
from fgsynth.train.train import outputs, train
from fgsynth.utils.errors import UserError

HARD = Method(dropout=0.5, criteria=("hardness",), scale=0.1)
TRAINING = {
    "network": "thin", "pretrained": False, "optimiser": "adamw", "rate": 0.01, "weight_decay": 0.05,
    "epochs": 1, "updates_per_epoch": 2, "batch": 8, "balanced": 1.0, "counts": "batch",
    "augment": ["crop", "jitter", "blur", "grey"], "side": 32, "workers": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def unclip(tmp_path_factory):
    return save(tmp_path_factory.mktemp("unclip"))


@pytest.fixture
def sampling(unclip, root, monkeypatch):
    """Settings of the tiny unCLIP, which is loaded once."""
    monkeypatch.chdir(root)
    loaded = Generator.load(unclip, 2)
    monkeypatch.setattr(build.Generator, "load", lambda *_, **__: loaded)
    return {
        "generator": str(unclip), "n_steps": 2, "every": 1, "through_network": False, "cfg": 2.0,
        "cfg_text": 1.0, "noise_level": 0, "dropout": 0.5, "fill_to": 4, "per_shard": 3, "batch": 4,
        "scales": dict.fromkeys(("entropy", "loss", "hardness", "combined"), 0.03), "side": 48,
    }  # fmt: skip


def experiment(name, world, sampling, tmp_path, **changes):
    return of_world(name, world, sampling, {**TRAINING, **changes}, str(tmp_path / "work"))


@pytest.fixture
def exp(sampling, tmp_path, monkeypatch):
    world = tiny_real.world(monkeypatch, tmp_path / "data", "imagenet_lt")
    return experiment("imagenet_lt", world, sampling, tmp_path)


def test_an_official_set_is_files_and_its_test_split_is_final(exp):
    m = exp.bench.manifest
    assert (m.counts().tolist(), m.classes, exp.bench.title) == (
        [4, 3, 2],
        ("apple", "banana", "car"),
        "ImageNet-LT",
    )
    assert m.rows("final")["key"].str.startswith("val/").all()
    with pytest.raises(UserError, match="no split 'test': choose one of train, val, final"):
        m.rows("test")
    assert isinstance(exp.real, ImageFiles)
    assert len({tuple(exp.real[i][0].shape) for i in range(len(exp.real))}) > 1
    assert exp.bench.prompt(2, 0) == "car"
    assert exp.side == 32


def test_the_whole_protocol_runs_from_files_and_shards(exp):
    made = exp.synthetic(HARD)
    assert exp.missing.tolist() == [1, 1, 2]
    assert made.x.shape == (4, 48, 48, 3)
    assert np.isfinite(made.index[["before", "after"]]).all(axis=None)
    assert exp.hardness.mean.shape == (3, 64)
    rows = {"real": Row(exp.recipe), "both": Row(exp.recipe, made)}
    scored = study.scores(exp, rows, [0, 1], "final")
    assert scored["both"].predicted.shape == (2, 6)
    assert "modes" not in scored["both"].nested[0]
    compared = study.compare(exp, scored, [("both", "real")], "final")
    assert compared["metric"].tolist() == ["overall", "few"]
    assert study.contents_of(exp, made) == {}
    assert study.entropy_of(exp, made) <= np.log(3)
    assert set(study.entropy_tells(exp)["kind"]) <= {"classified wrongly by the guide"}


def test_table_4_compares_photographs_by_the_generators_clip(exp):
    made = study.quality(exp, {"text": Method(image=False)}, per_class=2, k=1).iloc[0]
    assert made["fid"] > 0
    assert "recognised" not in made
    again = exp.synthetic(Method(image=False), per_group=np.full(3, 2))
    fake = exp.generator.clip_embedding(list(again.x)).float()
    files = [exp.trainings.images("val")[i][0] for i in range(3)]
    by_hand = study.fid(exp.generator.clip_embedding(files).float(), fake)
    assert made["fid"] == pytest.approx(by_hand, rel=1e-3)


def test_shards_are_read_by_offset_as_if_they_were_in_memory(exp):
    whole = exp.synthetic(HARD)
    store, digest = exp.complete(HARD)
    stored = SyntheticSet.of(store, digest, in_memory=0)
    assert isinstance(stored.x, StoredImages)
    assert len(stored.x.tars) == 2
    assert torch.equal(torch.cat([*stored.blocks()]), whole.x)
    mine = np.array([False, True, False, True])
    assert torch.equal(stored.rows(mine).at(np.arange(2)), whole.rows(mine).x)
    assert stored.rows(mine).images.label.tolist() == whole.rows(mine).images.label.tolist()
    recipe = replace(exp.recipe, side=None)  # with one, views of files are drawn one by one
    of_two = [train(whole.images, made.images, 3, recipe, 5) for made in (whole, stored)]
    first, second = (run.network.state_dict() for run in of_two)
    assert all(torch.equal(first[key], second[key]) for key in first)
    copied = pickle.loads(pickle.dumps(stored.images))  # as a process that reads ahead does
    assert torch.equal(copied[3][0], whole.x[3])


def test_a_damaged_image_in_a_shard_is_named(exp):
    store, digest = exp.complete(HARD)
    stored = SyntheticSet.of(store, digest, in_memory=0)
    tar = stored.x.tars[0]
    data = bytearray(tar.read_bytes())
    data[int(stored.x.offset[1]) + 30] ^= 1
    tar.write_bytes(data)
    assert stored.x[0][0].shape == (48, 48, 3)
    with pytest.raises(UserError, match=r"image at byte \d+ of .*00000.tar is damaged: fill the store again"):
        stored.x[1]
    tar.unlink()
    with pytest.raises(UserError, match=r"00000.tar cannot be read \(No such file"):
        stored.x[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_is_no_image_is_one_sentence_in_any_process(exp, workers):
    path = exp.real.paths[2]
    Path(path).write_bytes(b"no image")
    with pytest.raises(UserError) as caught:
        replace(exp, workers=workers).trainings.train(exp.recipe, 0)
    assert str(caught.value).startswith(f"{path} is not a readable image")
    assert "\n" not in str(caught.value)


def test_other_processes_read_the_same_images(exp):
    here, there = (replace(exp, workers=n).outputs(exp.guide, exp.real)[0] for n in (0, 2))
    assert torch.equal(here, there)


@pytest.mark.parametrize("name", ["places_lt", "nicopp"])
def test_the_other_sets_too(name, sampling, tmp_path, monkeypatch):
    world = tiny_real.world(monkeypatch, tmp_path / "data", name)
    exp = experiment(name, world, sampling, tmp_path)
    made = exp.synthetic(Method(dropout=0.5, criteria=("loss",), scale=0.1))
    assert len(made.index) == exp.missing.sum()
    prompt = {"places_lt": "field wild", "nicopp": "car in autumn"}[name]
    assert made.index["prompt"][0] == prompt
    shown = study.scores(exp, {"both": Row(exp.recipe, made)}, [0, 1], "final")["both"].nested[0]
    assert ("worst_group_accuracy" in shown) == (name == "nicopp")
    counts = registry.train_counts(name, world)
    assert counts.flatten().tolist() == exp.bench.manifest.fill_counts().tolist()


def missing_file(folder):
    next((folder / "images").rglob("*.JPEG")).unlink()


def altered_list(folder):
    with (folder / "lists/Tiny_train.txt").open("a") as file:
        file.write("train/n01/9.JPEG 0\n")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (missing_file, r"imagenet_lt: 1 of 18 images are not below .*check-data"),
        (altered_list, r"Tiny_train.txt has SHA-256 .*download it anew"),
    ],
)
def test_unfit_sets_are_refused_before_anything_runs(sampling, tmp_path, monkeypatch, spoil, sentence):
    world = tiny_real.world(monkeypatch, tmp_path / "data", "imagenet_lt")
    spoil(tmp_path / "data")
    with pytest.raises(UserError, match=sentence):
        experiment("imagenet_lt", world, sampling, tmp_path)


def test_a_class_that_is_not_trained_is_named(sampling, tmp_path, monkeypatch):
    lines = tiny_real.lines_of("imagenet_lt")
    lines["train"] = [line for line in lines["train"] if not line.endswith(" 1")]
    world = tiny_real.long_tailed(monkeypatch, tmp_path / "data", "imagenet_lt", lines)
    with pytest.raises(UserError, match="class 'banana' is in val but has no training image"):
        experiment("imagenet_lt", world, sampling, tmp_path)


def test_files_need_a_side(sampling, tmp_path, monkeypatch):
    world = tiny_real.world(monkeypatch, tmp_path / "data", "imagenet_lt")
    with pytest.raises(
        UserError, match="training: key 'side' is missing: the images of imagenet_lt are files"
    ):
        experiment("imagenet_lt", world, sampling, tmp_path, side=None)


@pytest.mark.parametrize(
    ("world", "sentence"),
    [
        ({"source": "disc", "root": "x"}, "world: key 'source' is 'disc': input should be 'disk'"),
        ({"source": "disk"}, "world: key 'root' is missing: add it"),
        ({"source": "disk", "root": "x", "list": "y"}, "world: unknown key 'list'"),
        (
            {"source": "disk", "root": "nowhere", "lists": "data"},
            "There is no folder .*/nowhere: give the folder",
        ),
        ({"source": "disk", "root": "data"}, "ImageNet_LT_train.txt is missing: get it from"),
    ],
)
def test_a_world_on_disk_is_checked(root, monkeypatch, world, sentence):
    monkeypatch.chdir(root)
    with pytest.raises(UserError, match=sentence):
        registry.draw("imagenet_lt", world)


def test_hardness_is_fitted_when_it_is_asked_for(sampling, tmp_path, monkeypatch):
    monkeypatch.setitem(tiny_real.COUNTS, "imagenet_lt", (4, 3, 1))
    world = tiny_real.world(monkeypatch, tmp_path / "data", "imagenet_lt")
    exp = experiment("imagenet_lt", world, sampling, tmp_path)
    assert exp.criterion("entropy") is not None
    assert len(exp.synthetic(replace(HARD, criteria=("entropy",))).index) == exp.missing.sum()
    with pytest.raises(UserError, match="imagenet_lt: class 'car' has fewer than two training images"):
        exp.synthetic(HARD)


def test_ones_own_images_are_read_from_files_where_memory_ends(sampling, tmp_path, monkeypatch):
    for split, n in {"train": 3, "val": 1}.items():
        for name in ("apple", "car"):
            for i in range(n):
                tiny_real.image(
                    tmp_path / "own" / split / name / f"{i}.png", tiny_real.hash_of((split, name, i))
                )
    given = sampling, TRAINING, str(tmp_path / "work")
    held = build.of_benchmark(own_images.benchmark(tmp_path / "own", 32), *given)
    monkeypatch.setattr(own_images, "IN_MEMORY", 0)
    read = build.of_benchmark(own_images.benchmark(tmp_path / "own", 32), *given)
    assert isinstance(held.real, Images)
    assert isinstance(read.real, ImageFiles)
    assert held.trainings.sized(held.real).side is None
    assert read.trainings.sized(read.real).side == 32
    # The views that are held are those that files give.
    views = [
        p.outputs(held.guide)[0] for p in (held.trainings.sized(held.real), read.trainings.sized(read.real))
    ]
    assert torch.equal(*views)
    assert IN_MEMORY > 1e9


def test_a_mini_world_is_embedded_in_batches_as_at_once(unclip):
    """Hardness in memory is what it was when all images were embedded by one call."""
    bench = mini.imagenet_lt(LongTail(n_max=110, n_min=4, strata=(8, 9, 7), n_val=1, n_test=1, modes=(1.0,)))
    rows = bench.manifest.rows("train")
    images = Images(bench.images(rows), torch.tensor(rows["label"].to_numpy()))
    guide = create("thin", 24, 3).eval().requires_grad_(False)
    at_once = torch.cat([guide(part)[1] for part in from_uint8(images.x).split(512)])
    in_batches = outputs(guide, images)[1]
    assert len(images) > 512
    assert torch.equal(in_batches, at_once)


def test_written_counts_are_those_of_the_official_lists(root, monkeypatch):
    monkeypatch.chdir(root)
    known = json.loads((root / real.COUNTS).read_text())
    assert {name: (len(n), sum(n), max(n), min(n)) for name, n in known.items()} == {
        "imagenet_lt": (1000, 115_846, 1280, 5),
        "places_lt": (365, 62_500, 4980, 5),
    }
    lists = root.parent / "shared/data/splits"
    if not (lists / "Places_LT_train.txt").is_file():
        pytest.skip("the official lists are not here")
    world = {"source": "disk", "root": "nowhere", "lists": str(lists)}
    assert registry.train_counts("places_lt", world).flatten().tolist() == known["places_lt"]


def test_the_papers_sets_are_planned_without_their_images(root, monkeypatch):
    """max(1300 - n, 1) of 1,000 classes are 1,184,154 images (FG step 4)."""
    monkeypatch.chdir(root)
    text = estimate.run("imagenet_lt", "paper")
    assert text.startswith("imagenet_lt at scale paper: 1,000 classes, 115,846 real images\n")
    assert "1,184,154" in text
    assert f"{365 * 4980 - 62_500 + 1:,}" in estimate.run("places_lt", "paper")
    with pytest.raises(UserError, match=r"There is no folder .*data/nicopp/images"):
        estimate.run("nicopp", "paper")


SMALL = {
    "imagenet_lt": {"amounts": [0.0, 0.5, 1.0], "weights": [0.0, 1.0]},
    "places_lt": {"second_epochs": 1},
    "nicopp": {
        "draws": 1,
        "search": {"rate": [-2.7, -2.1], "batch": [3.0, 3.1]},
        "coefficients": [0.03, 0.1],
    },
}


@pytest.mark.parametrize("stage", SMALL)
def test_the_notebook_runs_on_the_real_set(stage, sampling, tmp_path, monkeypatch, root):
    """Its code cells in this process, with the parameters of a world on disk."""
    matplotlib.use("agg")
    given = {
        "work": str(tmp_path / "work"), "split": "final", "seeds": 2, "sampling": {**sampling, "fill_to": 2},
        "training": {**TRAINING, "updates_per_epoch": 1}, **SMALL[stage],
        "world": tiny_real.world(monkeypatch, tmp_path / "data", stage),
    }  # fmt: skip
    check_stage(stage, given, "the test")
    path = root / "notebooks" / f"{NOTEBOOKS[stage]}.ipynb"
    declared = notebook.parameters(notebook.read(path), path)
    assert set(declared) == {*given, *INJECTED, "draw"}
    names = {
        **given,
        "draw": 0,
        "scale": "paper",
        "reports": str(tmp_path / "reports"),
        "runs": str(tmp_path / "runs"),
    }
    for cell in notebook.read(path).cells:
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
            exec(cell.source, names)
    matplotlib.pyplot.close("all")
    results = (tmp_path / f"reports/{stage}/results.csv").read_text()
    assert f"paper,{stage},LDM" in results
    assert ",final," in results
    assert "modes" not in results
    assert "mini" not in (tmp_path / f"reports/{stage}/figures/counts.csv").read_text()

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fgsynth.config.names import FG_ENTROPY
from fgsynth.config.schema import LongTail
from fgsynth.data import mini
from fgsynth.data.benchmark import Benchmark, Manifest
from fgsynth.data.disk import folders
from fgsynth.data.sources import read
from fgsynth.experiments import own_images
from fgsynth.experiments.study import Row, Scored, scores
from fgsynth.generate.methods import methods
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.pretrain.files import FOLDER
from fgsynth.utils.errors import UserError

SAMPLING = {
    "generator": str(FOLDER), "n_steps": 3, "every": 2, "through_network": False, "cfg": 3.0, "cfg_text": 1.5,
    "noise_level": 0, "dropout": 0.5, "fill_to": 6, "per_shard": 10,
    "scales": dict.fromkeys(("entropy", "loss", "hardness", "combined"), 0.03),
}  # fmt: skip
TRAINING = {
    "network": "slim", "pretrained": False, "optimiser": "adamw", "rate": 0.01, "weight_decay": 0.05,
    "epochs": 1, "updates_per_epoch": 2, "batch": 8, "balanced": 1.0, "counts": "batch", "augment": ["flip"],
}  # fmt: skip


def put(folder, counts, side=40):
    rng = np.random.default_rng(0)
    for split, counted in counts.items():
        for name, n in counted.items():
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                image = rng.integers(0, 256, (side, side + i, 3), np.uint8)
                Image.fromarray(image).save(folder / split / name / f"{i}.png")


@pytest.fixture
def exp(tmp_path, root, monkeypatch):
    monkeypatch.chdir(root)
    place = tmp_path / "images"
    put(place, {"train": {"red_fox": 5, "owl": 3}, "val": {"red_fox": 4, "owl": 4}})
    return own_images.experiment(place, 32, SAMPLING, TRAINING, str(tmp_path / "work"))


def scored(*predicted):
    return Scored("m", tuple(range(len(predicted))), 0, np.array(predicted), ({},) * len(predicted))


def test_a_folder_goes_through_the_whole_protocol(exp, tmp_path):
    assert exp.bench.manifest.classes == ("owl", "red fox")
    made = exp.synthetic(methods(exp.sampling)[FG_ENTROPY], per_group=np.array([3, 0]))
    assert set(made.index["label"]) == {0}
    assert made.x.shape == (3, 32, 32, 3)
    after = scores(exp, {"after": Row(exp.recipe, made)}, [0, 1], "val")["after"]
    assert after.predicted.shape == (2, 4)
    index = own_images.export(exp, made, tmp_path / "out")
    again = folders.from_csv(tmp_path / "out" / "index.csv")
    assert again.classes == ("owl",)
    image = np.asarray(Image.open(tmp_path / "out" / index["path"][1]))
    assert np.array_equal(image, made.x[1].numpy())


def test_an_export_is_finished_and_never_mixed_with_another(exp, tmp_path):
    columns = {"label": [0, 1], "key": ["a", "b"], "prompt": "p", "condition": "", "seed": [1, 2]}
    notes = {"criterion": "", "before": np.nan, "after": np.nan}
    grey = torch.full((2, 8, 8, 3), 9, dtype=torch.uint8)
    made = SyntheticSet(pd.DataFrame(columns | notes), grey, "d")
    index = own_images.export(exp, made, tmp_path / "out")
    lost = tmp_path / "out" / index["path"][0]
    lost.unlink()
    own_images.export(exp, made, tmp_path / "out")
    assert lost.is_file()
    other = SyntheticSet(made.index.assign(seed=[1, 3]), grey, "e")
    with pytest.raises(UserError, match="holds another synthetic set"):
        own_images.export(exp, other, tmp_path / "out")


NAMES = ("a/b", "a-b", "..", ".hidden", "a\\b", "a b", "a_b", "a%2Fb", "cat ", "a:b*?", "é", ".", "x\ny")


@pytest.mark.parametrize("place", ["", "index.csv"])
def test_any_class_name_is_exported_below_train_and_read_again(exp, tmp_path, place):
    n = len(NAMES)
    table = pd.DataFrame({"key": map(str, range(n)), "split": "train", "label": range(n), "context": 0})
    bench = Benchmark(Manifest("odd", table, NAMES), lambda rows: None)
    columns = {"label": range(n), "key": map(str, range(n)), "prompt": "p", "condition": "", "seed": range(n)}
    index = pd.DataFrame(columns | {"criterion": "", "before": np.nan, "after": np.nan})
    x = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 8, 8, 3)
    odd = replace(exp, bench=bench)
    own_images.export(odd, SyntheticSet(index, x, "d"), tmp_path / "out")
    files = {p for p in tmp_path.rglob("*.png") if not p.is_relative_to(tmp_path / "images")}
    assert {p.parent.parent for p in files} == {tmp_path / "out" / "train"}
    found = folders.load(tmp_path / "out" / place)
    assert set(found.classes) == set(NAMES)
    for path, y in zip(found.table["file"], found.table["label"], strict=True):
        shown = np.asarray(Image.open(tmp_path / "out" / path))
        assert NAMES[shown[0, 0, 0]] == found.classes[y]


def test_the_weakest_classes_are_those_of_the_lowest_accuracy_then_of_fewer_images(exp):
    label = exp.bench.manifest.rows("val")["label"].to_numpy()
    assert own_images.weakest(exp, scored(np.ones(4, int)), "val", 1) == [0]
    assert own_images.weakest(exp, scored(np.zeros(4, int)), "val", 1) == [1]
    assert own_images.weakest(exp, scored(label), "val", 1) == [0]


@pytest.mark.parametrize(("n", "real"), [(1, 7), (8, 4), (2000, 1)])
def test_batches_are_mixed_as_the_sets_are_large_with_one_of_each_at_least(exp, n, real):
    made = SyntheticSet(pd.DataFrame({"label": [0] * n}), torch.zeros(n, 32, 32, 3, dtype=torch.uint8), "")
    assert round(own_images.mixed(exp, made).real_share * exp.recipe.batch) == real


def test_changes_by_hand(exp):
    label = exp.bench.manifest.rows("val")["label"].to_numpy()
    made = SyntheticSet(pd.DataFrame({"label": [0, 0, 0]}), torch.zeros(3, 1, 1, 3, dtype=torch.uint8), "")
    wrong = np.ones(4, int)
    rows = own_images.changes(exp, scored(wrong, wrong), scored(label, label), made, "val")
    assert rows["class"].tolist() == ["owl", "red fox"]
    assert rows[["real", "synthetic", "before", "after"]].to_numpy().tolist() == [
        [3, 3, 0, 100],
        [5, 0, 100, 100],
    ]
    assert rows["gain"].tolist() == ["100.00 ± 0.00", "0.00 ± 0.00"]


def test_a_benchmark_becomes_a_folder_that_is_the_same_again(tmp_path):
    bench = mini.imagenet_lt(LongTail(n_max=110, n_min=4, strata=(8, 9, 7), n_val=2, n_test=3, modes=(1.0,)))
    own_images.as_folder(bench, tmp_path)
    found = folders.from_folders(tmp_path)
    for split in ("train", "val", "test"):
        names = [[m.manifest.classes[y] for y in m.manifest.rows(split)["label"]] for m in (bench, found)]
        assert pd.Series(names[0]).value_counts().to_dict() == pd.Series(names[1]).value_counts().to_dict()
    first = found.manifest.rows("val").head(1)
    name = found.classes[int(first["label"][0])]
    rows = bench.manifest.rows("val")
    same = rows[rows["label"] == bench.manifest.classes.index(name)].head(1)
    assert torch.equal(read(found.paths(first)[0]), bench.images(same)[0])


def test_real_photographs_go_through_the_whole_protocol(root, tmp_path, monkeypatch):
    photos = root.parent / "shared/data/photos"
    if not photos.is_dir():
        pytest.skip("the photographs are not there")
    monkeypatch.chdir(root)
    exp = own_images.experiment(photos, 32, SAMPLING, TRAINING, str(tmp_path / "work"))
    assert (
        exp.bench.manifest.counts("test").tolist() == exp.bench.manifest.counts("val").tolist() == [25] * 10
    )
    before = scores(exp, {"before": Row(exp.recipe)}, [0, 1], "val")["before"]
    weak = own_images.weakest(exp, before, "val", 2)
    each = np.zeros(10, int)
    each[weak] = 3
    made = exp.synthetic(methods(exp.sampling)[FG_ENTROPY], per_group=each)
    assert sorted(set(made.index["label"])) == sorted(weak)
    assert np.isfinite(made.index["after"]).all()
    conditions = dict(zip(made.index["condition"], made.index["label"], strict=True))
    for key, label in conditions.items():
        assert key.startswith(f"train/{exp.bench.manifest.classes[label].replace(' ', '_')}/")
    pair = {"before": Row(exp.recipe), "after": Row(own_images.mixed(exp, made), made)}
    held = scores(exp, pair, [0, 1], "test")
    changed = own_images.changes(exp, held["before"], held["after"], made, "test")
    assert changed.set_index("class")["real"]["freight car"] == 202
    assert len(own_images.export(exp, made, tmp_path / "out")) == 6


def test_a_class_of_one_image_is_taken_until_hardness_is_asked_for(tmp_path, root, monkeypatch):
    monkeypatch.chdir(root)
    put(tmp_path / "fox", {"train": {"owl": 3, "fox": 1}, "val": {"owl": 1, "fox": 1}})
    exp = own_images.experiment(tmp_path / "fox", 32, SAMPLING, TRAINING, str(tmp_path / "work"))
    assert exp.criterion("loss") is not exp.criterion("entropy")
    with pytest.raises(UserError, match="fox: class 'fox' has fewer than two training images"):
        exp.criterion("hardness")

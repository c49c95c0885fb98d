from dataclasses import replace

import pandas as pd
import torch

from fgsynth.config.schema import Groups, LongTail
from fgsynth.data import mini
from fgsynth.data.benchmark import Manifest
from fgsynth.data.disk import folders, own_folder
from fgsynth.data.sources import read


def test_an_empty_default_folder_is_filled_by_the_mini_world(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    tail = LongTail(n_max=101, n_min=4, strata=(8, 9, 7), n_val=1, n_test=1, modes=(1.0,))
    monkeypatch.setattr(own_folder.mini, "imagenet_lt", lambda tail: small_bench(tail.seed))
    first = own_folder.place_of(own_folder.PLACE, tail, "smoke", "work")
    assert first.name == "own-smoke"
    assert own_folder.place_of(own_folder.PLACE, tail, "smoke", "work") == first
    other = own_folder.place_of(own_folder.PLACE, tail.model_copy(update={"seed": 1}), "smoke", "work")
    same_name = "train/car/00000.png"
    assert (other / same_name).read_bytes() != (first / same_name).read_bytes()
    (tmp_path / own_folder.PLACE / "train").mkdir(parents=True)
    assert own_folder.place_of(own_folder.PLACE, tail, "smoke", "work") == tmp_path / own_folder.PLACE
    assert own_folder.place_of("pets", tail, "smoke", "work") == tmp_path / "pets"
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert own_folder.place_of("~/pets", tail, "smoke", "work") == tmp_path / "me/pets"


def small_bench(seed):
    """One image of two classes in every split."""
    groups = Groups(n_max=1, n_min=1, empty=0, held_out=3, classes=2, modes=(1.0,), seed=seed)
    whole = mini.nicopp(groups)
    few = whole.manifest.table.groupby(["split", "label"]).head(1)
    classes, source = ("car", "fish"), f"{seed}"
    return replace(whole, manifest=Manifest("own", few, classes, whole.manifest.contexts, source))


def test_a_benchmark_becomes_a_folder_that_is_the_same_again(tmp_path):
    bench = mini.imagenet_lt(LongTail(n_max=110, n_min=4, strata=(8, 9, 7), n_val=2, n_test=3, modes=(1.0,)))
    own_folder.as_folder(bench, tmp_path)
    found = folders.from_folders(tmp_path)
    for split in ("train", "val", "test"):
        names = [[m.manifest.classes[y] for y in m.manifest.rows(split)["label"]] for m in (bench, found)]
        assert pd.Series(names[0]).value_counts().to_dict() == pd.Series(names[1]).value_counts().to_dict()
    first = found.manifest.rows("val").head(1)
    name = found.classes[int(first["label"][0])]
    rows = bench.manifest.rows("val")
    same = rows[rows["label"] == bench.manifest.classes.index(name)].head(1)
    assert torch.equal(read(found.paths(first)[0]), bench.images(same)[0])

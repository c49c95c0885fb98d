import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from fgsynth.config.schema import LongTail
from fgsynth.data.disk import folders
from fgsynth.data.mini import tail_counts
from fgsynth.data.registry import draw
from fgsynth.latent.features.extractors import Extractor
from fgsynth.latent.features.sets import featurise, mini_long_tail, on_disk, places_lt
from fgsynth.utils.errors import UserError

WORLD = LongTail(
    n_max=120, n_min=4, strata=(8, 9, 7), n_val=2, n_test=3, modes=(0.65, 0.2, 0.1, 0.05), seed=0
)


@pytest.fixture(scope="module")
def mini():
    return mini_long_tail("imagenet_lt", WORLD)


def test_the_rest_completes_the_long_tailed_set_to_the_balanced_one(mini):
    table = mini.source.table.assign(split=mini.split)
    train, rest = (table[table["split"] == name] for name in ("train", "rest"))
    assert sorted(train["label"].value_counts()) == sorted(tail_counts(WORLD))
    full = pd.concat([train, rest])
    assert full["label"].value_counts().tolist() == [120] * 24
    for label, keys in full.groupby("label")["key"]:
        assert sorted(keys) == [f"train-{label:03d}-0-{i:05d}" for i in range(120)]
    assert table["key"].is_unique


def test_the_benchmarks_own_rows_come_first_and_unchanged(mini):
    own = draw("imagenet_lt", WORLD).manifest
    pd.testing.assert_frame_equal(mini.source.table.iloc[: len(own.table)], own.table)
    assert mini.classes == own.classes
    assert set(mini.split.tolist()) == {"train", "val", "test", "final", "rest"}


def test_the_rest_is_drawn_by_nature_as_the_long_tail_is(mini):
    rows = torch.from_numpy(np.flatnonzero(mini.split == "rest")[:4])
    rest, train = mini.source.take(rows), mini.source.take(torch.arange(4))
    assert rest.shape == (4, 32, 32, 3)
    assert not (rest == train).flatten(1).all(1).any()
    factors = mini.source.bench.factors(mini.source.table[mini.split == "rest"])
    assert 0.6 < (factors["mode"] == 0).mean() < 0.7


def test_places_are_drawn_alike_and_others_are_refused():
    world = WORLD.model_copy(update={"strata": (2, 3, 7)})
    made = mini_long_tail("places_lt", world)
    assert len(made.classes) == 12
    with pytest.raises(UserError, match=r"No long-tailed benchmark 'nicopp': choose one of imagenet_lt"):
        mini_long_tail("nicopp", world)


class Corner(nn.Module):
    def forward(self, x):
        return x[:, :, 0, 0]


def corner():
    def prepare(images):
        return torch.stack([torch.tensor(p.getpixel((0, 0))).float().reshape(3, 1, 1) for p in images])

    return Extractor("corner", "{}", prepare, Corner(), torch.device("cpu"))


@pytest.fixture
def images(tmp_path):
    """Two classes of images in folders; the red of an image is its number."""
    names = ("train/bee/1", "train/ant/2", "train/ant/3", "val/ant/4", "test/bee/5", "test/ant/6")
    for name in names:
        file = tmp_path / "images" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4), (int(file.stem), 0, 0)).save(file)
    return tmp_path / "images"


def test_files_become_features_by_split(images, tmp_path):
    made = featurise(corner(), on_disk(folders.load(images)), tmp_path / "cache", batch=2)
    assert made.classes == ("ant", "bee")
    assert made.part("train")[0][:, 0].tolist() == [2, 3, 1]
    assert made.part("train")[1].tolist() == [0, 0, 1]
    assert made.part("val")[0][:, 0].tolist() == [4]
    assert made.part("test")[0][:, 0].tolist() == [6, 5]
    assert made.counts().tolist() == [2, 1]


def test_files_are_opened_only_when_needed(images, tmp_path):
    made = on_disk(folders.load(images))
    (images / "test/ant/6.png").write_bytes(b"damaged")
    assert made.source[0][0].shape == (4, 5, 3)
    with pytest.raises(UserError, match=r"6\.png is not a readable image"):
        featurise(corner(), made, tmp_path / "cache")


def test_a_file_lost_since_it_was_listed_is_named_before_any_is_extracted(images, tmp_path):
    made = on_disk(folders.load(images))
    (images / "test/ant/6.png").unlink()
    with pytest.raises(UserError, match=r"test/ant/6\.png cannot be read .*: restore or remove it"):
        featurise(corner(), made, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_places_needs_its_official_lists_and_a_folder(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match=r"Places_LT_train\.txt is missing"):
        places_lt(tmp_path, tmp_path / "images")
    (tmp_path / "Places_LT_train.txt").write_text("train/airfield/1.jpg 0\n")
    with pytest.raises(UserError, match=r"Places_LT_train\.txt has SHA-256"):
        places_lt(tmp_path, tmp_path / "images")


def test_the_official_lists_have_the_published_sizes(root, tmp_path):
    folder = root.parent / "shared/data/splits"
    if not (folder / "Places_LT_train.txt").is_file():
        pytest.skip("the official lists are not here")
    made = places_lt(folder, tmp_path)
    names, sizes = np.unique(made.split, return_counts=True)
    assert dict(zip(names.tolist(), sizes.tolist(), strict=True)) == {
        "train": 62_500,
        "val": 7_300,
        "test": 36_500,
    }
    counts = made.source.label[torch.from_numpy(made.split == "train")].bincount()
    assert (len(counts), int(counts.max()), int(counts.min())) == (365, 4980, 5)

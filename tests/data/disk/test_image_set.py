import pickle
import re

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_files import image

from fgsynth.data.disk.image_set import ImageSet, as_table, require_folder, safe_path
from fgsynth.train.recipe import Recipe
from fgsynth.train.train import predict, train
from fgsynth.utils.errors import UserError

ROWS = [
    ("a/2.png", "train", 1, 0, "data/a/2.png"),
    ("a/1.png", "train", 0, 0, "data/a/1.png"),
    ("b/3.png", "val", 1, 0, "data/b/3.png"),
]


@pytest.fixture
def found(tmp_path):
    for i, row in enumerate(ROWS):
        image(tmp_path / row[4], i, size=32 + 8 * i)
    return ImageSet("tiny", tmp_path, as_table(ROWS), ("ant", "bee"))


def test_a_source_opens_files_in_the_manifests_order_in_their_own_size(found):
    source = found.source("train")
    assert found.manifest.rows("train")["key"].tolist() == ["a/1.png", "a/2.png"]
    assert source.label.tolist() == [0, 1]
    assert source.label.dtype == torch.int64
    assert len(source) == 2
    for i, (name, size) in enumerate((("1", 40), ("2", 32))):
        x, label = source[i]
        expected = np.asarray(Image.open(found.root / f"data/a/{name}.png"))
        assert x.shape == (size, size, 3)
        assert (x.numpy() == expected).all()
        assert label == i


def test_a_source_goes_to_worker_processes_as_it_is(found):
    again = pickle.loads(pickle.dumps(found.source("train")))
    assert torch.equal(again[1][0], found.source("train")[1][0])


def test_a_classifier_is_trained_and_evaluated_on_files(found):
    recipe = Recipe(network="slim", epochs=1, updates_per_epoch=1, batch=2, side=32, augment=("crop",))
    trained = train(found.source("train"), None, 2, recipe, 0, device="cpu")
    assert predict(trained.network, found.source("val"), side=32).shape == (1, 2)


def test_a_benchmarks_images_are_views_of_one_size(found):
    bench = found.benchmark(16)
    views = bench.images(bench.manifest.rows("train"))
    assert views.shape == (2, 16, 16, 3)
    assert views.dtype == torch.uint8
    assert bench.prompt(1, 0) == "bee"


def test_missing_files_are_found_by_listing_folders(found):
    assert found.present().all()
    found.require_files()
    (found.root / "data/a/1.png").unlink()
    assert found.present().tolist() == [True, False, True]
    with pytest.raises(UserError, match=r"tiny: 1 of 3 images are not below .*\(data/a/1.png is the first\)"):
        found.require_files()
    with pytest.raises(UserError, match=re.escape(f"no image at {found.root / 'data/a/1.png'}")):
        found.source("train")[0]
    assert not ImageSet("tiny", found.root / "other", found.table, found.classes).present().any()


def test_a_set_without_images_has_none_present(tmp_path):
    assert ImageSet("tiny", tmp_path, as_table([]), ("ant",)).present().shape == (0,)


@pytest.mark.parametrize(
    "path", ["/etc/x.jpg", "../x.jpg", "a/../../x.jpg", "C:/x.jpg", "a\\x.jpg", "", ".", "\0"]
)
def test_paths_that_leave_the_root_are_refused(path):
    with pytest.raises(UserError, match=r"^list.csv, line 3 has the path .*below the image root"):
        safe_path(path, "list.csv, line 3")


@pytest.mark.parametrize("path", ["a/b c/x..y.jpg", "x.jpg", "c:1.jpg"])
def test_paths_below_the_root_are_taken(path):
    assert safe_path(path, "here") == path


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    assert require_folder(tmp_path) == tmp_path
    with pytest.raises(UserError, match=f"There is no folder {tmp_path}/none: give the folder"):
        require_folder(tmp_path / "none")

import dataclasses
import hashlib
from collections import Counter
from pathlib import Path

import pytest
from timm.data import ImageNetInfo
from tiny_files import SPLIT_NAMES, image

from fgsynth.data.benchmark import strata
from fgsynth.data.disk.longtail import IMAGENET_LT, PLACES_LT, class_names, load, read_split, survey
from fgsynth.utils.errors import UserError

LINES = {
    "train": ["train/field-wild/1.jpg 0", "train/field-wild/2.jpg 0", "train/desert_road/3.jpg 1"],
    "val": ["train/field-wild/4.jpg 0"],
    "test": ["val/desert_road/Places365_val_5.jpg 1"],
}
NAMES = "field-wild\ndesert_road highway\n"


@pytest.fixture
def official(tmp_path):
    """Places-LT's layouts with tiny split files, in tmp_path/splits."""
    (tmp_path / "names.txt").write_text(NAMES)
    (tmp_path / "splits").mkdir()
    (tmp_path / "root").mkdir()
    return relist(PLACES_LT, tmp_path, LINES)


def relist(official, tmp_path, lines):
    files = {}
    for split, each in lines.items():
        data = "".join(f"{line}\n" for line in each).encode()
        (tmp_path / "splits" / SPLIT_NAMES[split]).write_bytes(data)
        files[split] = (SPLIT_NAMES[split], hashlib.sha256(data).hexdigest())
    return dataclasses.replace(official, name="tiny", files=files, classnames=tmp_path / "names.txt")


def test_split_files_become_a_manifest_with_computed_counts_and_prompts(official, tmp_path):
    found = load(official, tmp_path / "root", tmp_path / "splits")
    m = found.manifest
    assert m.counts().tolist() == [2, 1]
    assert m.counts("val").tolist() == [1, 0]
    assert m.counts("test").tolist() == [0, 1]
    assert m.classes == ("field wild", "highway")
    assert m.rows("test")["key"].tolist() == ["val/desert_road/Places365_val_5.jpg"]


LAYOUTS = {
    "easy": ("train/field-wild/1.jpg", "val/desert_road/Places365_val_5.jpg"),
    "standard": (
        "places365_standard/train/field-wild/1.jpg",
        "places365_standard/val/desert_road/Places365_val_5.jpg",
    ),
    "letters": ("data_256/f/field/wild/1.jpg", "val_256/Places365_val_5.jpg"),
    "torchvision": ("data_large_standard/f/field/wild/1.jpg", "val_large/Places365_val_5.jpg"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_published_layout_is_found_and_gives_the_same_manifest(official, tmp_path, layout):
    digest = load(official, tmp_path / "root", tmp_path / "splits").manifest.digest
    train, val = (image(tmp_path / "root" / name, i) for i, name in enumerate(LAYOUTS[layout]))
    found = load(official, tmp_path / "root", tmp_path / "splits")
    assert found.source("train").paths[0] == str(train)
    assert found.source("test").paths == (str(val),)
    assert found.manifest.digest == digest
    assert found.present().sum() == 2


def test_imagenets_validation_images_may_lie_in_one_folder(tmp_path):
    (tmp_path / "names.txt").write_text("n01440764 tench\n")
    (tmp_path / "splits").mkdir()
    lines = {"train": ["train/n01440764/a.JPEG 0"], "test": ["val/n01440764/v.JPEG 0"]}
    official = relist(IMAGENET_LT, tmp_path, lines)
    for base in ("", "ILSVRC/Data/CLS-LOC/"):
        root = tmp_path / f"root{len(base)}"
        for name in ("train/n01440764/a.JPEG", "val/v.JPEG"):
            image(root / (base + name), 0)
        found = load(official, root, tmp_path / "splits")
        assert found.source("test").paths == (str(root / (base + "val/v.JPEG")),)
        assert found.present().all()


def test_split_files_lie_in_the_root_by_default(official, tmp_path):
    found = load(official, tmp_path / "splits")
    assert len(found.table) == 5


def test_an_altered_split_file_is_refused(official, tmp_path):
    path = tmp_path / "splits/Tiny_val.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(UserError, match=r"Tiny_val.txt has SHA-256 .* the official file has .*: download it"):
        load(official, tmp_path / "root", tmp_path / "splits")
    found = survey(official, tmp_path / "root", tmp_path / "splits")
    assert len(found.faults) == 1
    assert set(found.table["split"]) == {"train", "test"}


def test_a_missing_split_file_says_where_to_get_it(official, tmp_path):
    with pytest.raises(UserError, match=r"root/Tiny_train.txt is missing: get it from .*liuziwei7.*--splits"):
        load(official, tmp_path / "root")
    found = survey(official, tmp_path / "root")
    assert len(found.faults) == 3
    assert found.table.empty


@pytest.mark.parametrize("path", ["/etc/cat/1.jpg", "train/../../1.jpg"])
def test_a_split_file_that_leaves_the_root_is_refused(official, tmp_path, path):
    official = relist(official, tmp_path, {"train": [*LINES["train"], f"{path} 0"]})
    with pytest.raises(UserError, match=r"Tiny_train.txt, line 4 has the path .*below the image root"):
        load(official, tmp_path / "root", tmp_path / "splits")


@pytest.mark.parametrize("line", ["train/cat/1.jpg", "train/cat/1.jpg cat", "train/1.jpg 0", "a/b/1.jpg 0"])
def test_a_line_that_is_no_path_and_label_is_refused(tmp_path, line):
    path = tmp_path / "x.txt"
    path.write_text(line + "\n")
    with pytest.raises(
        UserError, match=r"x.txt, line 1 is .*: '<train or val>/<class folder>/<name> <label>'"
    ):
        read_split(path, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("names", ["desert_road\nfield-wild\n", "field-wild\n"])
def test_class_names_in_another_order_than_the_folders_are_refused(official, tmp_path, names):
    (tmp_path / "names.txt").write_text(names)
    with pytest.raises(UserError, match=r"names.txt: label \d is .* in the split files of tiny: restore it"):
        load(official, tmp_path / "root", tmp_path / "splits")


def test_a_missing_list_of_class_names_is_one_sentence(official, tmp_path):
    (tmp_path / "names.txt").unlink()
    with pytest.raises(UserError, match=r"names.txt is missing: restore it"):
        load(official, tmp_path / "root", tmp_path / "splits")


def test_imagenets_names_are_in_timms_order_and_tell_classes_apart(root):
    names = class_names(root / IMAGENET_LT.classnames)
    info = ImageNetInfo()
    assert [synset for synset, _ in names] == info.label_names()
    assert max(Counter(name for _, name in names).values()) == 1
    # Most readable names share a word with WordNet's; a list shifted by one would not.
    shared = [
        bool(set(name.lower().split()) & set(info.index_to_description(i).lower().replace(",", " ").split()))
        for i, (_, name) in enumerate(names)
    ]
    assert sum(shared) > 900


def test_places_names_follow_the_folders_where_the_official_index_differs(root):
    names = class_names(root / PLACES_LT.classnames)
    assert len(names) == len(set(names)) == 365
    assert {i: names[i][1] for i in (116, 117, 118, 141, 142)} == {
        116: "desert road",
        117: "desert sand",
        118: "desert vegetation",
        141: "field road",
        142: "field wild",
    }


@pytest.fixture(scope="module")
def shared():
    folder = Path(__file__).resolve().parents[4] / "shared/data"
    if not folder.is_dir():
        pytest.skip("the official split files are not there")
    return folder


def test_places_lt_is_as_published(root, shared, tmp_path):
    found = load(PLACES_LT, tmp_path, shared / "splits")
    m = found.manifest
    counts = m.counts()
    assert (int(counts.sum()), int(counts.max()), int(counts.min())) == (62_500, 4_980, 5)
    assert Counter(strata(counts).tolist()) == {"many": 131, "medium": 163, "few": 71}
    assert set(m.counts("val").tolist()) == {20}
    assert set(m.counts("test").tolist()) == {100}
    official = (shared / "classnames/categories_places365.txt").read_text().splitlines()
    folders = [line.split()[0][3:].replace("/", "-") for line in official]
    ours = [folder for folder, _ in class_names(root / PLACES_LT.classnames)]
    assert [i for i in range(365) if ours[i] != folders[i]] == [116, 117, 118, 141, 142]
    # Only "/" became "-", so that the archives by letter can be found from the folder's name.
    assert sorted(ours) == sorted(folders)
    assert not any("-" in line for line in official)


def test_imagenet_lt_is_as_published_as_far_as_its_files_are_there(shared, tmp_path):
    found = survey(IMAGENET_LT, tmp_path, shared / "splits")
    sizes = found.table.groupby(["split", "label"]).size()
    assert set(sizes["val"]) == {20}
    assert set(sizes["test"]) == {50}
    assert sizes.index.levels[1].tolist() == list(range(1000))
    assert all("ImageNet_LT_train.txt" in fault for fault in found.faults)

import shutil

import pytest
from data.disk.test_longtail import LINES, NAMES, relist
from PIL import Image
from tiny_files import class_folders, image

from fgsynth.data.disk import longtail, nicopp
from fgsynth.data.disk.check import NAMES as KNOWN
from fgsynth.data.disk.check import check_data
from fgsynth.pipeline.commands import main
from fgsynth.utils.errors import UserError

COUNTS = {"train/cat": 3, "train/dog": 1, "val/cat": 2, "test/dog": 1}


@pytest.fixture
def pets(tmp_path):
    return class_folders(tmp_path / "pets", COUNTS)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Places-LT with tiny split files, in tmp_path/splits."""
    (tmp_path / "names.txt").write_text(NAMES)
    for name in ("splits", "root"):
        (tmp_path / name).mkdir()
    official = relist(longtail.PLACES_LT, tmp_path, LINES)
    monkeypatch.setitem(longtail.BY_NAME, "places_lt", official)
    return official


def only(sentences):
    assert len(sentences) == 1, sentences
    return sentences[0]


def test_a_sound_folder_is_ready(pets):
    report = check_data("folder", pets)
    assert report.ok
    assert report.text.splitlines() == [
        f"folder in {pets}",
        "  train: 4 images of 2 classes, 1 to 3 each (0 many, 0 medium, 2 few)",
        "  val: 2 images of 1 class, 2 each",
        "  test: 1 image of 1 class, 1 each",
        "Ready.",
    ]


def test_damaged_images_are_counted_and_named(pets):
    data = (pets / "train/cat/0.png").read_bytes()
    (pets / "train/cat/0.png").write_bytes(data[: len(data) // 2])
    (pets / "val/cat/1.png").write_text("no image")
    report = check_data("folder", pets)
    told = only(report.problems)
    assert told.startswith("2 images cannot be read: train/cat/0.png is damaged or refused (")
    assert "val/cat/1.png is no image that PIL knows" in told
    assert report.text.endswith("Not ready: 1 thing to put right.")
    assert main(["check-data", "folder", "--root", str(pets)]) == 1


def test_many_findings_are_a_number_and_a_few_names(pets):
    for i in range(20):
        (pets / f"train/cat/bad{i:02d}.png").touch()
    told = only(check_data("folder", pets).problems)
    assert told.startswith("20 images cannot be read: train/cat/bad00.png is no image")
    assert "bad02.png" in told
    assert "bad03.png" not in told
    assert "and 17 more" in told


def test_a_bomb_is_refused_by_pils_limit(pets, monkeypatch):
    image(pets / "train/cat/large.png", 5, size=64)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 32)
    assert "train/cat/large.png is damaged or refused (Image size (4096 pixels) exceeds limit" in only(
        check_data("folder", pets).problems
    )


def test_other_colours_are_a_note(pets):
    image(pets / "train/cat/c.jpg", 11, "CMYK")
    image(pets / "train/cat/d.jpg", 12, "CMYK")
    image(pets / "train/cat/a.png", 13, "RGBA")
    report = check_data("folder", pets)
    assert report.ok
    assert only(report.notes).endswith("whenever they are read: 2 CMYK, 1 with alpha.")


def test_equal_bytes_in_two_splits_are_to_be_put_right(pets):
    shutil.copy(pets / "train/cat/0.png", pets / "val/cat/copy.png")
    told = only(check_data("folder", pets).problems)
    assert told.startswith("1 image in more than one split, byte by byte")
    assert "train/cat/0.png (train) = val/cat/copy.png (val)" in told


@pytest.mark.parametrize("held_out", [("val", "test"), ("test",)])
def test_copies_of_one_image_that_a_draw_parts_are_to_be_put_right(pets, held_out):
    """Without val, or without test, some of the copies become it."""
    for split in held_out:
        shutil.rmtree(pets / split)
    place = "val" if (pets / "val").exists() else "train"
    for i in range(9):
        shutil.copy(pets / place / "cat/0.png", pets / place / f"cat/copy{i}.png")
    report = check_data("folder", pets)
    assert "in more than one split, byte by byte; keep one of the files" in " ".join(report.problems)
    with pytest.raises(UserError, match=r"pets is not ready: .* in more than one split"):
        report.require()


def test_equal_bytes_in_two_classes_are_to_be_put_right(pets):
    shutil.copy(pets / "train/cat/0.png", pets / "train/dog/copy.png")
    told = only(check_data("folder", pets).problems)
    assert told.startswith("1 image in more than one class, byte by byte")


def test_equal_bytes_in_one_class_are_to_be_looked_at(pets):
    shutil.copy(pets / "train/cat/0.png", pets / "train/cat/copy.png")
    report = check_data("folder", pets)
    assert report.ok
    assert "train/cat/0.png = train/cat/copy.png" in only(report.warnings)


@pytest.mark.parametrize(("place", "where"), [("val", "in another split"), ("train", "in the same split")])
def test_recompressed_copies_are_to_be_looked_at(pets, place, where):
    image(pets / "train/cat/large.png", 99, size=128)
    Image.open(pets / "train/cat/large.png").resize((96, 96)).save(pets / place / "cat/small.jpg", quality=85)
    report = check_data("folder", pets)
    assert report.ok
    told = only(report.warnings)
    assert f"alike {where}" in told
    assert "train/cat/large.png" in told
    assert f"{place}/cat/small.jpg" in told


def test_a_class_that_train_lacks_is_named_and_the_rest_still_checked(pets):
    class_folders(pets, {"val/yak": 1})
    (pets / "train/cat/0.png").write_text("no")
    first, second = check_data("folder", pets).problems
    assert "class 'yak' is in val but has no training image" in first
    assert "1 image cannot be read" in second


def test_a_csv_is_checked_with_what_it_misses(pets):
    rows = ["path,label,split", "train/cat/0.png,cat,train", "train/cat/none.png,cat,train"]
    rows += ["val/cat/0.png,cat,val", "val/cat/1.png,cat,test"]
    (pets / "list.csv").write_text("\n".join(rows))
    told = only(check_data("folder", pets / "list.csv").problems)
    assert told == (
        f"train: 1 of 2 images are missing below {pets}, like train/cat/none.png: restore them, or take "
        "them off the list."
    )


@pytest.mark.parametrize("path", ["/etc/1.png", "../1.png"])
def test_a_csv_that_leaves_the_root_is_a_problem(pets, path):
    (pets / "list.csv").write_text(f"path,label\n{path},cat\n")
    assert "list.csv, line 2 has the path" in only(check_data("folder", pets / "list.csv").problems)


def test_a_root_that_is_not_there_is_a_problem(tmp_path):
    for name in KNOWN:
        assert "There is no folder" in check_data(name, tmp_path / "none").problems[-1]


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(
        UserError, match="No data set 'imagenet': choose one of imagenet_lt, places_lt, nicopp"
    ):
        check_data("imagenet", tmp_path)


def fill(root, lines):
    for i, line in enumerate(sorted({line.split()[0] for each in lines.values() for line in each})):
        image(root / line, i)


def test_an_official_set_is_ready_when_all_is_there(tiny, tmp_path):
    fill(tmp_path / "root", LINES)
    report = check_data("places_lt", tmp_path / "root", tmp_path / "splits")
    assert report.ok, report.text
    assert report.there[0] == "train: 3 images of 2 classes, 1 to 2 each (0 many, 0 medium, 2 few)"
    assert report.warnings == ()


def test_missing_images_are_one_sentence_per_split(tiny, tmp_path):
    fill(tmp_path / "root", LINES)
    for name in ("train/field-wild/1.jpg", "train/field-wild/4.jpg"):
        (tmp_path / "root" / name).unlink()
    train, val = check_data("places_lt", tmp_path / "root", tmp_path / "splits").problems
    assert train.startswith("train: 1 of 3 images are missing below")
    assert "like train/field-wild/1.jpg: get them from Places365, http://places2.csail.mit.edu" in train
    assert val.startswith("val: all 1 images are missing")


def test_duplicates_of_an_official_split_do_not_stand_in_the_way(tiny, tmp_path):
    fill(tmp_path / "root", LINES)
    shutil.copy(tmp_path / "root/train/field-wild/1.jpg", tmp_path / "root/train/field-wild/4.jpg")
    report = check_data("places_lt", tmp_path / "root", tmp_path / "splits")
    assert report.ok
    assert "in more than one split" in only(report.warnings)


def test_an_altered_split_file_is_a_problem_and_the_others_are_counted(tiny, tmp_path):
    fill(tmp_path / "root", LINES)
    with (tmp_path / "splits/Tiny_train.txt").open("a") as file:
        file.write("train/field-wild/9.jpg 0\n")
    report = check_data("places_lt", tmp_path / "root", tmp_path / "splits")
    assert "Tiny_train.txt has SHA-256" in only(report.problems)
    assert [line.partition(":")[0] for line in report.there] == ["val", "test"]


def test_nicopp_is_checked_with_a_warning_on_other_numbers(tmp_path):
    for context in nicopp.CONTEXTS:
        (tmp_path / context).mkdir()
    for i in range(78):
        image(tmp_path / f"rock/hot air balloon/rock_{i:06d}.jpg", i)
    report = check_data("nicopp", tmp_path)
    assert report.ok, report.text
    assert "in 1 of 360 groups" in report.there[0]
    assert "(printed 62,657)" in only(report.warnings)
    assert "the split of seed 0 is looked at, and written when it is first used" in only(report.notes)
    assert not nicopp.split_file(tmp_path, 0).exists()

    nicopp.load(tmp_path, tmp_path / "splits")
    assert check_data("nicopp", tmp_path, tmp_path / "splits").notes == ()
    (tmp_path / "rock/hot air balloon/rock_000000.jpg").unlink()
    report = check_data("nicopp", tmp_path, tmp_path / "splits")
    assert "1 of" in only(report.problems)
    assert "differ in 1 image (rock/hot air balloon/rock_000000.jpg is one)" in report.warnings[1]


def test_the_real_split_files_without_images_are_a_short_summary(root, tmp_path):
    shared = root.parent / "shared/data"
    if not shared.is_dir():
        pytest.skip("the official split files are not there")
    report = check_data("places_lt", tmp_path, shared / "splits")
    text = report.text
    assert not report.ok
    assert len(text.splitlines()) == 9
    assert "train: 62,500 images of 365 classes, 5 to 4,980 each (131 many, 163 medium, 71 few)" in text
    assert "train: all 62,500 images are missing" in text


def test_real_photographs_are_ready(root):
    photos = root.parent / "shared/data/photos"
    if not photos.is_dir():
        pytest.skip("the photographs are not there")
    report = check_data("folder", photos)
    assert report.there[0] == "train: 730 images of 10 classes, 11 to 202 each (3 many, 4 medium, 3 few)"
    assert report.ok, report.text

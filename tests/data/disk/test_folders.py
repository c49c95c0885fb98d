import os
import re
import shutil

import pytest
from tiny_files import class_folders

from fgsynth.data.disk.folders import from_csv, from_folders, load, with_test
from fgsynth.pipeline.commands import main
from fgsynth.utils.errors import UserError


def split_of(found):
    return dict(zip(found.table["key"], found.table["split"], strict=True))


def test_class_folders_become_classes_in_sorted_order(tmp_path):
    counts = {"train/sea_lion": 3, "train/cat": 2, "val/cat": 1, "test/sea_lion": 2, "final/cat": 1}
    found = load(class_folders(tmp_path / "pets", counts))
    m = found.manifest
    assert (m.name, m.classes) == ("pets", ("cat", "sea lion"))
    assert m.counts().tolist() == [2, 3]
    assert m.counts("test").tolist() == [0, 2]
    assert m.counts("final").tolist() == [1, 0]
    assert found.source("train")[2][1] == 1
    assert found.notes == ()


def test_without_val_a_stated_share_of_every_class_is_held_out(tmp_path):
    counts = {"train/a": 20, "train/b": 7, "train/c": 2, "train/d": 1, "test/a": 1}
    found = from_folders(class_folders(tmp_path, counts))
    assert found.manifest.counts("val").tolist() == [4, 1, 1, 0]
    assert found.manifest.counts().tolist() == [16, 6, 1, 1]
    assert found.manifest.counts("test").tolist() == [1, 0, 0, 0]
    assert "6 images, 20% of every class (seed 0), are held out of train" in found.notes[0]


def test_the_held_out_images_do_not_depend_on_the_others(tmp_path):
    root = class_folders(tmp_path, {"train/a": 20, "train/b": 20})
    first = split_of(from_folders(root))
    class_folders(root, {"train/c": 9})
    more = split_of(from_folders(root))
    assert {key: more[key] for key in first} == first


def test_without_test_half_of_val_is_it(tmp_path):
    counts = {"train/a": 9, "train/b": 3, "train/c": 1, "train/d": 4, "val/a": 9, "val/b": 1, "val/c": 1}
    found = with_test(from_folders(class_folders(tmp_path, counts)))
    # b has one image in val, which stays; c has no other in train, and d none in val to be found weak by.
    assert found.manifest.counts().tolist() == [9, 2, 1, 4]
    assert found.manifest.counts("val").tolist() == [4, 1, 1, 0]
    assert found.manifest.counts("test").tolist() == [5, 1, 0, 0]
    assert found.notes[-1] == "There is no test: 5 images of val and 1 of train (seed 0) are it."
    class_folders(tmp_path, {"final/a": 1})
    whole = from_folders(tmp_path)
    assert with_test(whole) is whole


def test_what_is_left_out_is_said(tmp_path):
    root = class_folders(tmp_path, {"train/a": 2, "train/a/deeper": 1, "val/a": 1, "valid/a": 1})
    (root / "train/a/notes.txt").touch()
    (root / "train/a/.DS_Store").touch()
    found = from_folders(root)
    assert found.manifest.counts().tolist() == [3]
    assert found.notes == (
        "Folders valid are not used: only train, val, test, final are.",
        "1 file does not end like an image (.jpg, .jpeg, .png, .webp, .bmp, .gif, .tif, .tiff, .ppm, .pgm): "
        "left out (1 .txt).",
    )


def test_an_image_in_no_class_folder_is_a_fault(tmp_path):
    root = class_folders(tmp_path, {"train/a": 2, "val/a": 1})
    shutil.copy(root / "train/a/0.png", root / "train/stray.png")
    (root / "train/.hidden.png").touch()
    (root / "train/notes.txt").touch()
    with pytest.raises(
        UserError, match=r"train has images outside its class folders \(1, stray.png is the f"
    ):
        from_folders(root).manifest  # noqa: B018


def test_a_folder_without_train_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no image as train/<class>/<name>.jpg: put a folder per class"):
        from_folders(class_folders(tmp_path, {"val/a": 2}))
    with pytest.raises(UserError, match="There is no folder"):
        from_folders(tmp_path / "none")


def test_a_class_that_train_lacks_is_named(tmp_path):
    found = from_folders(class_folders(tmp_path, {"train/a": 2, "val/a": 1, "val/yak": 1}))
    with pytest.raises(UserError, match="class 'yak' is in val but has no training image"):
        _ = found.manifest


def test_two_folders_of_one_name_are_refused(tmp_path):
    with pytest.raises(UserError, match="classes 'sea lion' and 'sea_lion' have one name: join or rename"):
        from_folders(class_folders(tmp_path, {"train/sea_lion": 1, "train/sea lion": 1}))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("train/cat", "train/Cat"),
        ("train/cat", "train/cat "),
        ("train/cat", "val/Cat"),
        ("train/a b", "val/a  b"),
        ("train/caf\u00e9", "train/cafe\u0301"),
        ("train/caf\u00e9", "val/cafe\u0301"),
        ("train/a_b", "train/a%20b"),
        ("train/cat", "train/cat\u200b"),
        ("train/\ufeffcat", "val/cat"),
    ],
)
def test_two_classes_of_one_look_are_refused(tmp_path, first, second):
    pair = [ascii(name.partition("/")[2]) for name in (first, second)]
    with pytest.raises(UserError, match="have one name: join or rename them") as caught:
        load(class_folders(tmp_path, {first: 1, second: 1, "train/dog": 1}))
    assert all(name in str(caught.value) for name in pair)
    lines = [
        f"{i}.png,{name[1:-1]},{f.split('/')[0]}"
        for i, (f, name) in enumerate(zip((first, second), pair, strict=True))
    ]
    table = "path,label,split\n9.png,dog,train\n" + "\n".join(lines).encode().decode("unicode_escape")
    (tmp_path / "list.csv").write_text(table, encoding="utf-8")
    with pytest.raises(UserError, match=r"list\.csv: classes .* have one name"):
        load(tmp_path / "list.csv")


def test_hidden_folders_are_told_of(tmp_path):
    names = {"train/a": 1, "train/b": 1, "val/a": 1, "train/.hidden": 2, ".cache": 1}
    assert load(class_folders(tmp_path, names)).notes == (
        "Hidden folders are not used: .cache, train/.hidden.",
    )


def test_a_folder_with_one_csv_and_no_train_is_read_by_it(tmp_path):
    root = class_folders(tmp_path, {"new/a": 3, "new/b": 2})
    csv(root, "path,label", *(f"{p.relative_to(root)},{p.parent.name}" for p in sorted(root.rglob("*.png"))))
    assert load(root).contents() == load(root / "list.csv").contents()
    assert load(root).manifest.classes == ("a", "b")
    (root / "more.csv").write_text("path,label")
    with pytest.raises(UserError, match="has no image as train/<class>/"):
        load(root)


def test_two_groups_of_one_look_are_refused(tmp_path):
    with pytest.raises(UserError, match="groups 'Dim' and 'dim' have one name"):
        load(csv(tmp_path, "path,label,group", "1.jpg,a,dim", "2.jpg,a,Dim"))


def test_a_class_without_an_image_is_counted_and_named(tmp_path):
    root = class_folders(tmp_path, {"train/a": 3, "val/a": 2})
    for name in ("train/owl", "train/yak", "val/owl"):
        (root / name).mkdir()
    found = load(root)
    with pytest.raises(UserError, match=r"train/owl \(empty\), train/yak \(empty\), val/owl \(empty\): add"):
        _ = found.manifest
    for name in ("1.heic", "2.HEIC", "note"):
        (root / "train/owl" / name).touch()
    found = load(root)
    with pytest.raises(UserError, match=r"train/owl \(2 \.heic, 1 no ending\), train/yak \(empty\)"):
        found.require_files()
    assert "3 files do not end like an image" in found.notes[0]
    assert found.notes[0].endswith("left out (2 .heic, 1 no ending).")
    for name in ("train/owl", "train/yak"):
        for file in (root / name).iterdir():
            file.unlink()
        (root / name).rmdir()
    found = load(root)
    assert found.manifest.classes == ("a",)
    assert found.notes == ("Class folders without an image: val/owl (empty).",)


def test_only_unreadable_images_are_told_of_a_folder_without_any_other(tmp_path):
    (tmp_path / "train/cat").mkdir(parents=True)
    (tmp_path / "train/cat/1.heic").touch()
    with pytest.raises(UserError, match=r"has no image .* \(train/cat holds 1 \.heic\)"):
        load(tmp_path)


LATIN = os.fsdecode("caf\xe9".encode("latin-1"))


@pytest.mark.parametrize("name", [f"train/cat/{LATIN}.png", f"train/{LATIN}/9.png", f"val/{LATIN}/9.png"])
def test_a_name_that_is_not_utf8_is_one_printable_sentence(tmp_path, name, capsys):
    root = class_folders(tmp_path / "pets", {"train/cat": 3, "train/dog": 2})
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / "train/cat/0.png", root / name)
    with pytest.raises(UserError, match="1 file name is not UTF-8") as caught:
        _ = load(root).manifest
    assert name.replace(LATIN, r"caf\udce9") in str(caught.value)
    str(caught.value).encode()
    assert main(["check-data", "folder", "--root", str(root)]) == 1
    said = capsys.readouterr()
    assert "1 file name is not UTF-8" in said.out
    assert "Traceback" not in said.err


def test_a_root_whose_name_is_not_utf8_is_refused(tmp_path, capsys):
    root = class_folders(tmp_path / LATIN, {"train/cat": 3})
    (root / "list.csv").write_text("path,label\ntrain/cat/0.png,cat\n")
    for place in (root, root / "list.csv"):
        assert main(["check-data", "folder", "--root", str(place)]) == 1
        assert r"caf\udce9 is not UTF-8" in capsys.readouterr().out


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    class_folders(tmp_path / "pics", {"train/cat": 3})
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("~/pics").manifest.classes == ("cat",)
    assert main(["check-data", "folder", "--root", "~/pics"]) == 0


def csv(tmp_path, *lines):
    path = tmp_path / "list.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return path


def test_a_csv_gives_labels_groups_and_splits(tmp_path):
    path = csv(
        tmp_path,
        "path,label,group,split,remark",
        "x/1.jpg,sea_lion,dim,train,",
        "x/2.jpg,cat,rock,train,odd",
        'x/3.jpg,cat,dim,val,"a, b"',
        "x/4.jpg,cat,dim,test,",
    )
    m = load(path).manifest
    assert (m.name, m.classes, m.contexts) == ("list", ("cat", "sea lion"), ("dim", "rock"))
    assert m.group_counts().tolist() == [0, 1, 1, 0]
    assert m.rows("val")["key"].tolist() == ["x/3.jpg"]


def test_a_csv_may_end_in_capitals(tmp_path):
    path = csv(tmp_path, "path,label", "1.jpg,a")
    assert load(path.rename(tmp_path / "LIST.CSV")).manifest.classes == ("a",)


def test_a_csv_of_paths_and_labels_is_held_out_by_class_and_group(tmp_path):
    rows = [f"{i}.jpg,{i % 11},{'ab'[i < 3]}" for i in range(44)]
    found = from_csv(csv(tmp_path, "path,label,group", *rows))
    # Numbers are sorted as numbers: 10 is the last class.
    assert found.manifest.classes == tuple(str(i) for i in range(11))
    assert found.manifest.counts("val").tolist() == [1] * 11
    assert found.manifest.group_counts("val")[1::2].tolist() == [0] * 11


@pytest.mark.parametrize("path", ["/etc/1.jpg", "../1.jpg", "a/../../1.jpg", "a\\1.jpg"])
def test_a_csv_that_leaves_the_root_is_refused(tmp_path, path):
    with pytest.raises(UserError, match=r"list.csv, line 3 has the path .*below the image root"):
        load(csv(tmp_path, "path,label", "1.jpg,a", f"{path},a"))


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["path,label,label", "1.jpg,a,b"], "has the column 'label' twice: remove or rename one"),
        (
            ["path,class", "1.jpg,a"],
            "list.csv has no column 'label': write it as UTF-8, with columns path, label[, group][, split]",
        ),
        (["path,label", "1.jpg,a", "2.jpg,"], "list.csv, line 3 has no label: give one or leave the row out"),
        (["path,label,split", "1.jpg,a,"], "list.csv, line 2 has no split"),
        (["path,label,split", "1.jpg,a,valid"], "list.csv, line 2 has split 'valid': choose one of train"),
        (["path,label,split", "1.jpg,a,val"], "list.csv has no row for training"),
        (["path,label"], "list.csv has no row for training"),
        (["path,label", "1.jpg,a", "2.jpg,a,b,c"], "list.csv is no readable CSV"),
        ([""], "list.csv is no readable CSV"),
    ],
)
def test_a_csv_with_a_mistake_is_refused_with_its_line(tmp_path, lines, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        load(csv(tmp_path, *lines))


def test_a_csv_that_is_not_there_or_not_utf8_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"There is no file .*none.csv: give a CSV with the columns path"):
        load(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("path,label\n1.jpg,Bär\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin.csv is no readable CSV .*write it as UTF-8"):
        load(tmp_path / "latin.csv")


def test_a_path_that_stands_twice_is_named(tmp_path):
    found = load(csv(tmp_path, "path,label,split", "1.jpg,a,train", "1.jpg,a,val"))
    with pytest.raises(UserError, match=r"image 1.jpg is there twice"):
        _ = found.manifest

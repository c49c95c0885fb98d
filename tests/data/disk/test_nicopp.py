import hashlib
import json

import pandas as pd
import pytest
from tiny_files import image

from fgsynth.data.disk import nicopp
from fgsynth.utils.errors import UserError

CELLS = {"autumn/cow": 80, "autumn/fishing rod": 4, "water/cow": 76, "rock/dog": 75, "dim/dog": 90}


def touch(base, cells=CELLS):
    """Empty files: the split is by names alone."""
    for context in nicopp.CONTEXTS:
        (base / context).mkdir(parents=True, exist_ok=True)
    for folder, n in cells.items():
        (base / folder).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            (base / folder / f"{folder.split('/')[0]}_{i:06d}.jpg").touch()
    return base


def rows_of(found):
    return found.manifest.table.apply(tuple, axis=1).tolist()


def test_every_group_is_split_by_the_papers_rule(tmp_path):
    found = nicopp.draw_split(touch(tmp_path))
    table = found.table.assign(cell=found.table["key"].str.rpartition("/")[0])
    sizes = table.groupby(["cell", "split"]).size().unstack(fill_value=0)
    assert sizes.loc["autumn/cow"].to_dict() == {"test": 50, "train": 5, "val": 25}
    assert sizes.loc["water/cow"].to_dict() == {"test": 50, "train": 1, "val": 25}
    assert sizes.loc["rock/dog"].to_dict() == {"test": 50, "train": 0, "val": 25}
    assert sizes.loc["autumn/fishing rod"].to_dict() == {"test": 3, "train": 0, "val": 1}
    names = nicopp.class_names()
    assert set(table["label"]) == {names.index(name) for name in ("cow", "dog", "fishing rod")}


def test_a_group_is_context_plus_six_times_class(tmp_path):
    found = nicopp.draw_split(touch(tmp_path, {"autumn/cow": 80, "water/cow": 77}))
    cow = nicopp.class_names().index("cow")
    counts = found.manifest.group_counts()
    assert len(counts) == 360
    assert (counts[6 * cow], counts[6 * cow + 5], counts.sum()) == (5, 2, 7)
    assert found.benchmark(8).prompt(cow, 5) == "cow in water"


def test_the_split_depends_on_seed_and_names_only(tmp_path):
    cells = {"autumn/cow": 80, "dim/dog": 90}
    first = nicopp.draw_split(touch(tmp_path / "a", cells))
    # Made in the opposite order, in another layout, with underscores: the same rows.
    other = touch(tmp_path / "b/public_dg_0416/train", dict(reversed(cells.items())))
    again = nicopp.draw_split(other.parents[1])
    assert rows_of(first) == rows_of(again)
    assert first.manifest.digest == again.manifest.digest
    assert again.present().all()
    assert rows_of(nicopp.draw_split(tmp_path / "a", seed=1)) != rows_of(first)


def test_held_out_images_are_drawn_not_the_first_by_name(tmp_path):
    found = nicopp.draw_split(touch(tmp_path, {"autumn/cow": 150}))
    held = sorted(found.table["key"][found.table["split"] != "train"])
    every = sorted(found.table["key"])
    assert held != every[:75]
    assert 25 < sum(key in every[:75] for key in held) < 50


@pytest.mark.parametrize("base", nicopp.BASES)
def test_published_layouts_and_spellings_have_the_same_keys(tmp_path, base):
    touch(tmp_path / base, {"autumn/cow": 76, "autumn/fishing_rod": 76})
    found = nicopp.draw_split(tmp_path)
    assert "autumn/fishing rod/autumn_000000.jpg" in set(found.table["key"])
    assert found.present().all()
    written = nicopp.load(tmp_path, tmp_path / "splits")
    assert written.present().all()
    assert rows_of(written) == rows_of(found)


def test_a_split_is_written_once_and_read_ever_after(tmp_path):
    root = touch(tmp_path / "data", {"autumn/cow": 80, "dim/dog": 90})
    found = nicopp.load(root, tmp_path)
    path = nicopp.split_file(tmp_path, 0)
    table = pd.read_csv(path)
    assert list(table.columns) == ["key", "split", "class", "context"]
    assert len(table) == 170
    before = path.read_bytes()
    # An image more does not move the others.
    (root / "autumn/cow/new.jpg").touch()
    assert rows_of(nicopp.load(root, tmp_path)) == rows_of(found)
    assert path.read_bytes() == before
    assert len(nicopp.load(root, tmp_path / "elsewhere").table) == 171


def test_an_altered_split_is_refused(tmp_path):
    root = touch(tmp_path / "data", {"autumn/cow": 80})
    nicopp.load(root, tmp_path)
    path = nicopp.split_file(tmp_path, 0)
    path.write_text(path.read_text().replace(",val,", ",test,", 1))
    with pytest.raises(UserError, match=r"nicopp_split_0.csv is not the file that .*sha256 was written for"):
        nicopp.load(root, tmp_path)
    path.with_name(path.name + ".sha256").unlink()
    with pytest.raises(UserError, match="restore both, or remove both"):
        nicopp.load(root, tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"nicopp_split_0.csv is missing"):
        nicopp.read_split(path, root)


BAD = {
    "../cow/1.jpg,train,cow,autumn": "has the path '../cow/1.jpg'",
    "/autumn/cow/1.jpg,train,cow,autumn": "has the path '/autumn",
    "autumn/cow/1.jpg,train,unicorn,autumn": "are needed",
    "autumn/cow/1.jpg,valid,cow,autumn": "are needed",
    "autumn/cow/1.jpg,train,cow,water": "are needed",
    "autumn/1.jpg,train,cow,autumn": "are needed",
}


@pytest.mark.parametrize("row", BAD)
def test_rows_that_are_no_image_of_nicopp_are_refused(tmp_path, row):
    path = tmp_path / "s.csv"
    path.write_text(f"key,split,class,context\n{row}\n")
    path.with_name("s.csv.sha256").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  s.csv\n")
    with pytest.raises(UserError, match=rf"s.csv, line 2 .*{BAD[row]}"):
        nicopp.read_split(path, touch(tmp_path / "data", {"autumn/cow": 1}))


def test_other_columns_are_refused(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("key,split\n")
    path.with_name("s.csv.sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(
        UserError, match=r"s.csv has columns key, split: key, split, class, context are needed"
    ):
        nicopp.read_split(path, touch(tmp_path / "data"))


def test_a_folder_that_is_not_nicopp_says_what_it_lacks(tmp_path):
    with pytest.raises(
        UserError, match=r"has no folders autumn, dim, .*public_dg_0416/train.*nicochallenge.com"
    ):
        nicopp.draw_split(tmp_path)
    with pytest.raises(UserError, match="has no image as <context>/<class>"):
        nicopp.draw_split(touch(tmp_path, {"autumn/unicorn": 3}))


def test_folders_of_other_classes_are_left_out_and_named(tmp_path):
    found = nicopp.draw_split(touch(tmp_path, {"autumn/cow": 76, "dim/unicorn": 3}))
    assert len(found.table) == 76
    assert found.notes == ("1 folder is no class of NICO++ and is left out (dim/unicorn).",)


def test_numbers_other_than_the_printed_ones_are_told_not_refused(tmp_path):
    (told,) = nicopp.differences(nicopp.draw_split(touch(tmp_path, {"autumn/cow": 80})))
    assert "5 for train (printed 62,657), 25 for val (printed 8,726), 50 for test (printed 17,483)" in told


def test_the_printed_numbers_are_told_nothing_about(tmp_path, monkeypatch):
    monkeypatch.setattr(nicopp, "PRINTED", {"train": 5, "val": 25, "test": 50})
    assert nicopp.differences(nicopp.draw_split(touch(tmp_path, {"autumn/cow": 80}))) == []


def test_classes_are_in_the_order_of_the_published_mapping(root):
    names = nicopp.class_names()
    assert (len(names), names[0], names[12], names[59]) == (60, "car", "fishing rod", "umbrella")
    published = root.parent / "shared/data/splits/nicopp_dg_label_id_mapping.json"
    if not published.is_file():
        pytest.skip("the published mapping is not there")
    assert {name: i for i, name in enumerate(names)} == json.loads(published.read_text())


def test_images_are_opened_where_they_are(tmp_path):
    touch(tmp_path / "train", {"autumn/fishing_rod": 80})
    found = nicopp.load(tmp_path, tmp_path)
    source = found.source("train")
    image(tmp_path / "train/autumn/fishing_rod" / source.paths[0].rpartition("/")[2], 0)
    assert source[0][0].shape == (32, 32, 3)

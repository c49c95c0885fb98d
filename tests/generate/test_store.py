import hashlib
import io
import subprocess
import sys
import tarfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fgsynth.generate import engines
from fgsynth.generate.engines import Engine
from fgsynth.generate.store import NOTES, Store
from fgsynth.utils.errors import UserError


def plan(n=10):
    """Of all kinds of columns, in an order that is not the keys'."""
    key = [f"{(7 * i) % n:05d}" for i in range(n)]
    table = pd.DataFrame({"key": key, "label": [i % 3 for i in range(n)], "group": [i % 2 for i in range(n)]})
    table["prompt"] = [f"an image, «{i}»" for i in range(n)]
    table["condition"] = ["" if i % 2 else f"real/{i}.png" for i in range(n)]
    table["seed"] = [(i + 1) * 0x9E3779B97F4A7C15 % 2**63 for i in range(n)]
    table["context"] = [None if i % 4 == 0 else "rock" for i in range(n)]
    table["weight"] = [np.nan if i % 5 == 0 else i / 3 for i in range(n)]
    return table


def make(rows):
    """Images and notes that depend on the rows' seeds alone."""
    seeds = rows["seed"].tolist()
    images = [np.random.Generator(np.random.Philox(s)).integers(0, 256, (8, 6, 3), np.uint8) for s in seeds]
    before = [float("nan") if s % 3 == 0 else s / 2**63 for s in seeds]
    notes = {"criterion": ["" if s % 3 == 0 else "loss" for s in seeds], "before": before, "after": before}
    return np.stack(images), pd.DataFrame({**notes, "non_finite": [s % 4 for s in seeds]})


def fill(store, make, piece=256, **engine):
    return engines.fill(store, lambda: make, engine=Engine(**engine), piece=piece)


def written(store):
    """Every shard of a store, each written at once."""
    store.tidy()
    for number in range(len(store.parts())):
        store.write(number, [make(store.rows(number))])


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def whole(tmp_path):
    """Ten images in shards of 4, 4 and 2."""
    store = Store(tmp_path / "whole", plan(), per_shard=4)
    assert fill(store, make, piece=3) == 10
    return store


@pytest.fixture
def again(whole):
    """Fills the store anew after damage: the keys made, once the folder is as it was before."""
    before = content(whole.folder)

    def refill():
        asked = []
        fill(whole, lambda rows: (asked.extend(rows["key"]), make(rows))[1])
        assert content(whole.folder) == before
        return asked

    return refill


def test_a_store_gives_back_what_was_made_in_the_plans_order(whole):
    images, notes = make(whole.plan)
    assert str(whole.images().dtype) == "torch.uint8"
    assert np.array_equal(whole.images().numpy(), images)
    index = whole.index()
    pd.testing.assert_frame_equal(index[plan().columns], pd.read_parquet(io.BytesIO(plan().to_parquet())))
    pd.testing.assert_frame_equal(index[[*NOTES]], notes.astype(NOTES))
    assert index["shard"].tolist() == ["00000.tar"] * 4 + ["00001.tar"] * 4 + ["00002.tar"] * 2


def test_a_shard_is_a_webdataset_tar(whole):
    index = whole.index()
    for name, rows in index.groupby("shard"):
        with tarfile.open(whole.folder / name) as tar:
            members = tar.getmembers()
            assert [m.name for m in members] == [f"{key}.png" for key in rows["key"]]
            assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {
                (0, 0, 0, "", "", 0o644)
            }
            assert [m.offset_data for m in members] == rows["offset"].tolist()
            assert [m.size for m in members] == rows["size"].tolist()


def test_offsets_point_at_the_png(whole):
    for row in whole.index().itertuples():
        data = (whole.folder / row.shard).read_bytes()[row.offset : row.offset + row.size]
        assert hashlib.sha256(data).hexdigest() == row.sha256
        assert np.array_equal(Image.open(io.BytesIO(data)), make(pd.DataFrame({"seed": [row.seed]}))[0][0])


def test_two_runs_give_the_same_bytes_whatever_the_piece(whole, tmp_path):
    other = Store(tmp_path / "other", plan(), per_shard=4)
    fill(other, make, piece=1)
    assert content(other.folder) == content(whole.folder)
    assert set(content(whole.folder)) == {"plan.parquet"} | {
        f"0000{i}.{kind}" for i in range(3) for kind in ("tar", "parquet")
    }


def test_a_tensor_is_an_image_too(tmp_path):
    # Here, as the process that is killed imports this file and has no time to lose.
    import torch

    store = Store(tmp_path, plan())
    fill(store, lambda rows: (torch.from_numpy(make(rows)[0]), make(rows)[1]))
    assert np.array_equal(store.images().numpy(), make(store.plan)[0])


def test_a_whole_store_is_left_alone(whole):
    stamps = {path: path.stat().st_mtime_ns for path in whole.folder.iterdir()}
    assert whole.todo() == []
    assert fill(whole, lambda rows: pytest.fail("made again")) == 0
    assert {path: path.stat().st_mtime_ns for path in whole.folder.iterdir()} == stamps


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_any_damaged_byte_of_a_tar_is_found(whole, again):
    row = whole.index().iloc[5]
    tar, size = whole.folder / row["shard"], (whole.folder / row["shard"]).stat().st_size
    header, png, padding, end = row["offset"] - 500, row["offset"] + 40, row["offset"] + row["size"], size - 1
    assert row["size"] % 512, "no padding to damage"
    for at in (header, png, padding, end):
        flip(tar, at)
        assert whole.todo() == [1]
        if at == png:
            with pytest.raises(UserError, match=rf"Image {row['key']} of .*00001\.tar is damaged: fill"):
                whole.images()
        assert again() == whole.plan["key"].tolist()[4:8]


def test_a_damaged_number_in_an_index_is_found(whole, again):
    path = whole.folder / "00002.parquet"
    before = whole.part_index(2)["before"].dropna().to_numpy()[0]
    flip(path, path.read_bytes().index(before.tobytes()))
    assert whole.todo() == [2]
    assert again() == whole.plan["key"].tolist()[8:]


def test_damage_elsewhere_in_an_index_is_found_or_changes_nothing(whole):
    path, index = whole.folder / "00002.parquet", whole.part_index(2)
    data = path.read_bytes()
    for at in range(0, len(data), 211):
        flip(path, at)
        if whole.todo() != [2]:
            pd.testing.assert_frame_equal(whole.part_index(2), index)
        path.write_bytes(data)


@pytest.mark.parametrize("end", [0, 600, 10239])
def test_a_truncated_file_is_made_again(whole, again, end):
    for name in ("00000.tar", "00000.parquet"):
        path = whole.folder / name
        path.write_bytes(path.read_bytes()[:end] if name.endswith("tar") else path.read_bytes()[: end // 3])
        for read in (whole.index, whole.images):
            with pytest.raises(UserError, match=r"00000\.parquet (is damaged|does not fit its tar): fill"):
                read()
        assert again() == whole.plan["key"].tolist()[:4]


@pytest.mark.parametrize("name", ["00001.tar", "00001.parquet"])
def test_a_deleted_file_is_made_again(whole, again, name):
    (whole.folder / name).unlink()
    for read in (whole.index, whole.images):
        with pytest.raises(UserError, match=rf"{name} is missing: fill"):
            read()
    assert again() == whole.plan["key"].tolist()[4:8]


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("seed", 1, "made by another plan"),
        ("weight", 0.5, "made by another plan"),
        ("offset", 1024, "does not fit its tar"),
        ("size", -1, "does not fit its tar"),
        ("shard", "00000.tar", "does not fit its tar"),
        ("before", "high", "does not fit its tar"),
        ("sha256", "0" * 64, "is damaged"),
    ],
)
def test_an_index_that_does_not_fit_is_made_again(whole, again, column, value, sentence):
    path = whole.folder / "00001.parquet"
    frame = pd.read_parquet(path)
    if isinstance(value, str):
        frame[column] = value
    else:
        frame.loc[1, column] = value
    frame.to_parquet(path, index=False)
    assert whole.todo() == [1]
    with pytest.raises(UserError, match=sentence):
        whole.images()
    assert again() == whole.plan["key"].tolist()[4:8]


def test_an_old_index_beside_a_new_tar_is_made_again(whole, again, tmp_path):
    other = Store(tmp_path / "other", plan().assign(seed=range(10)), per_shard=4)
    fill(other, make)
    (whole.folder / "00001.tar").write_bytes((other.folder / "00001.tar").read_bytes())
    assert again() == whole.plan["key"].tolist()[4:8]


def test_only_shards_with_changed_rows_are_made_again(whole, tmp_path):
    changed = plan()
    changed.loc[6, "seed"] = 5
    store = Store(whole.folder, changed, per_shard=4)
    with pytest.raises(UserError, match=r"00001\.parquet was made by another plan"):
        store.index()
    assert store.todo() == [1]
    assert fill(store, make) == 4
    fresh = Store(tmp_path / "fresh", changed, per_shard=4)
    fill(fresh, make)
    assert content(store.folder) == content(fresh.folder)


@pytest.mark.parametrize(("rows", "per_shard"), [(5, 4), (10, 3), (10, 100), (4, 4)])
def test_a_store_of_another_length_leaves_nothing_behind(whole, tmp_path, rows, per_shard):
    store = Store(whole.folder, plan().iloc[:rows], per_shard)
    fresh = Store(tmp_path / "fresh", plan().iloc[:rows], per_shard)
    for each in (store, fresh):
        fill(each, make)
    assert content(store.folder) == content(fresh.folder)


def test_partial_files_of_a_killed_run_go_unless_others_are_at_work(whole):
    left = whole.folder / ".partial-xyz.tar"
    left.touch()
    fill(whole, make, worker=1, workers=2)
    assert left.exists()
    fill(whole, make)
    assert not left.exists()


def test_the_plan_is_kept_with_its_digest(whole):
    kept = pd.read_parquet(whole.folder / "plan.parquet")
    pd.testing.assert_frame_equal(kept, whole.plan)
    digest = hashlib.sha256(kept.to_csv(index=False).encode()).hexdigest()
    assert kept.attrs == {"per_shard": 4, "sha256 of the CSV": digest}


def test_a_raising_make_keeps_what_was_finished(tmp_path):
    store = Store(tmp_path, plan(), per_shard=4)

    def fails(rows):
        if store.plan["key"][5] in set(rows["key"]):
            raise KeyboardInterrupt
        return make(rows)

    with pytest.raises(KeyboardInterrupt):
        fill(store, fails, piece=1)
    assert set(content(tmp_path)) == {"plan.parquet", "00000.tar", "00000.parquet"}
    assert fill(store, make, piece=1) == 5, "the finished piece of the second shard was not kept"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p: p.drop(columns="seed"), "lacks the column 'seed'"),
        (lambda p: p.assign(before=0.0), "column 'before' is one of the index"),
        (lambda p: p.iloc[:0], "no rows"),
        (lambda p: p.assign(label=0.5), "column 'label' holds floating"),
        (lambda p: p.assign(prompt=None), "column 'prompt' holds empty|column 'prompt' holds"),
        (lambda p: p.assign(seed=2**63), r"seed below 0 or above 2\*\*63"),
        (lambda p: p.assign(key=p["key"] + "/x"), "Key '00000/x' of the plan"),
        (lambda p: p.assign(key="x"), "Key 'x' is in the plan twice"),
        (lambda p: p.assign(odd=[1, "a"] * 5), "cannot be stored.*column odd"),
    ],
)
def test_unfit_plans_are_refused(tmp_path, change, sentence):
    with pytest.raises(UserError, match=sentence):
        Store(tmp_path, change(plan()))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda p, n: (p[1:], n), r"with 4 notes are uint8 of shape \(3, 8, 6, 3\)"),
        (lambda p, n: (p[1:], n[1:]), "got 3 images for 4 rows"),
        (lambda p, n: (p / 255, n), "float64 of shape"),
        (lambda p, n: (p[..., 0], n), r"shape \(4, 8, 6\)"),
        (lambda p, n: (p, n.drop(columns="after")), "after"),
        (lambda p, n: (p, n.assign(before="high")), "could not convert"),
    ],
)
def test_unfit_images_are_refused_and_nothing_is_left(tmp_path, spoil, sentence):
    store = Store(tmp_path, plan(), per_shard=4)
    with pytest.raises(UserError, match=sentence):
        fill(store, lambda rows: spoil(*make(rows)))
    assert set(content(tmp_path)) == {"plan.parquet"}


def test_a_shard_with_too_few_or_too_many_images_is_refused(tmp_path):
    store = Store(tmp_path, plan(), per_shard=4)
    for rows in (store.rows(0)[:3], store.plan[:5]):
        with pytest.raises(UserError, match=rf"00000.tar got {len(rows)} images for 4 rows"):
            store.write(0, [make(rows)])
    assert content(tmp_path) == {}


def test_unfit_requests_are_refused(whole):
    with pytest.raises(UserError, match="'per_shard' is 0"):
        Store(whole.folder, plan(), 0)


def test_the_store_needs_no_torch_to_start():
    code = "import sys, fgsynth.generate.store; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


KILLED = """
import os, signal, sys, time
from pathlib import Path
from random import Random
from fgsynth.generate.store import Store
sys.path[:0] = ["tests", "tests/generate"]
from test_store import fill, make, plan

def child(started):
    def slow(rows):
        os.write(started, b"x")
        time.sleep(0.005)
        return make(rows)
    fill(Store(Path(sys.argv[1]), plan(IMAGES), 4), slow, piece=2)
    os._exit(0)

delay, killed = Random(1), 0
for _ in range(20):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        child(write)
    os.close(write)
    os.read(read, 1)
    time.sleep(delay.uniform(0, 0.1))
    os.kill(pid, signal.SIGKILL)
    killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    os.close(read)
sys.exit(killed)
"""


def test_a_run_killed_twenty_times_ends_as_an_undisturbed_one(tmp_path, root):
    images = 480
    killed, calm = tmp_path / "killed", Store(tmp_path / "calm", plan(images), 4)
    code = KILLED.replace("IMAGES", str(images))
    assert subprocess.run([sys.executable, "-c", code, killed], cwd=root, check=False).returncode == 20
    store = Store(killed, plan(images), 4)
    assert 0 < len(store.todo()) < len(store.parts()), "the kills missed the work"
    fill(store, make)
    fill(calm, make)
    assert content(killed) == content(calm.folder)
    names = []
    for path in sorted(killed.glob("*.tar")):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    assert names == [f"{key}.png" for key in store.plan["key"]]
    assert store.index()["key"].is_unique
    assert np.array_equal(store.images().numpy(), make(store.plan)[0])


def test_no_index_stands_beside_a_tar_that_is_not_its_own(whole, monkeypatch):
    other = Store(whole.folder, plan().assign(seed=range(10)), per_shard=4)
    monkeypatch.setattr("fgsynth.generate.store._to_parquet", lambda frame: pytest.fail("killed here"))
    with pytest.raises(pytest.fail.Exception):
        other.write(1, [make(other.rows(1))])
    assert not (whole.folder / "00001.parquet").exists()

import os
import shutil

import pytest
import torch

from fgsynth.models.networks import small
from fgsynth.utils import cache
from fgsynth.utils.errors import UserError


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A package of a module, and of a folder with two."""
    package = tmp_path / "package"
    (package / "world").mkdir(parents=True)
    for name in ("one.py", "two.py", "world/a.py", "world/b.py"):
        (package / name).write_text(f"# {name}")
    monkeypatch.setattr(cache, "PACKAGE", package)
    return package


def test_a_fingerprint_is_of_settings_and_code(code):
    def now(*parts):
        cache.code_digest.cache_clear()  # as another process would
        return cache.fingerprint(("one", "world"), *parts)

    first = now({"a": 1, "b": 2}, "x")
    assert now({"b": 2, "a": 1}, "x") == first
    assert len({first, now({"a": 1, "b": 3}, "x"), now({"a": 1, "b": 2}, "y"), now({"a": 1, "b": 2})}) == 4
    (code / "two.py").write_text("# other, but not asked for")
    assert now({"a": 1, "b": 2}, "x") == first
    seen = {first}
    for name in ("one.py", "world/b.py", "world/c.py"):
        (code / name).write_text("# new")
        seen.add(now({"a": 1, "b": 2}, "x"))
    assert len(seen) == 4


def test_code_that_is_edited_under_a_running_process_is_not_what_runs(code):
    before = cache.fingerprint(("one",))
    (code / "one.py").write_text("# new")
    assert cache.fingerprint(("one",)) == before
    cache.code_digest.cache_clear()
    assert cache.fingerprint(("one",)) != before


def test_parts_do_not_run_into_each_other(code):
    assert cache.fingerprint(("one",), "ab", "c") != cache.fingerprint(("one",), "a", "bc")
    assert cache.fingerprint(("one",), 1) != cache.fingerprint(("one",), "1")
    assert cache.fingerprint(("one",), (1.0, None)) == cache.fingerprint(("one",), [1.0, None])


def test_a_module_that_is_not_there_is_no_fingerprint(code):
    with pytest.raises(FileNotFoundError, match=r"three\.py"):
        cache.fingerprint(("one", "three"))


def test_files_count_by_name_and_bytes(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("1")
    b.write_text("1")
    assert cache.files_digest([a]) != cache.files_digest([b])
    before = cache.files_digest([a, b])
    b.write_text("2")
    assert cache.files_digest([a, b]) != before


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Two folders of files of one size and time, their digests kept somewhere of their own."""
    monkeypatch.setenv("FGSYNTH_CACHE", str(tmp_path / "kept"))
    files = [tmp_path / "set" / name for name in ("cat/0.bmp", "cat/1.bmp", "dog/0.bmp", "dog/1.bmp")]
    for i, path in enumerate(files):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([i]) * 9)
        os.utime(path, ns=(10**18, 10**18))
    return files


def exchange(a, b):
    """Two files or folders under each other's names, times and all."""
    aside = a.with_name("aside")
    a.rename(aside)
    b.rename(a)
    aside.rename(b)


def overwrite(path):
    stat = path.stat()
    path.write_bytes(b"x" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("settled", [-1e18, 1e18])
@pytest.mark.parametrize(
    "change",
    [
        lambda cat, other, dog, _: exchange(cat, other),
        lambda cat, other, dog, _: exchange(cat.parent, dog.parent),
        lambda cat, other, dog, _: overwrite(cat),
        lambda cat, other, dog, _: shutil.copy2(dog, cat),
        lambda cat, other, dog, _: cat.write_bytes(b"longer than it was"),
    ],
)
def test_files_count_by_their_contents_under_names_sizes_and_times_that_stay(
    images, monkeypatch, change, settled
):
    monkeypatch.setattr(cache, "SETTLED", settled)
    before = cache.content_digests(images)
    assert before == cache.content_digests(images)
    assert len(set(before)) == 4
    change(*images)
    contents = [path.read_bytes() for path in images]
    after = cache.content_digests(images)
    assert after != before
    assert [after[0] == one for one in after] == [contents[0] == one for one in contents]


def test_equal_contents_elsewhere_have_equal_digests(images, tmp_path):
    shutil.copytree(tmp_path / "set", tmp_path / "elsewhere")
    copies = [tmp_path / "elsewhere" / path.relative_to(tmp_path / "set") for path in images]
    assert cache.content_digests(copies) == cache.content_digests(images)


def test_a_file_that_did_not_change_is_read_once(images, monkeypatch):
    read, opened = cache._sha256, []
    monkeypatch.setattr(cache, "_sha256", lambda path: opened.append(path) or read(path))
    cache.content_digests(images)
    assert cache.content_digests(images[:2]) == cache.content_digests(images)[:2]
    # They were written just now: within the same tick they could be written to again.
    assert len(opened) == 4 + 2 + 4
    monkeypatch.setattr(cache, "SETTLED", -1e18)
    first = cache.content_digests(images)
    opened.clear()
    assert cache.content_digests(images) == first
    assert opened == []
    images[0].write_bytes(b"new")
    assert cache.content_digests(images) != first
    assert opened == images[:1]


@pytest.mark.parametrize("text", ["", "[", '{"0.bmp": '])
def test_kept_digests_that_are_lost_or_damaged_are_made_anew(images, tmp_path, monkeypatch, text):
    monkeypatch.setattr(cache, "SETTLED", -1e18)
    before = cache.content_digests(images)
    kept = list((tmp_path / "kept").rglob("*.json"))
    assert len(kept) == 2
    for path in kept:
        path.write_text(text)
    assert cache.content_digests(images) == before
    monkeypatch.setenv("FGSYNTH_CACHE", str(images[0]))  # no folder to write into
    assert cache.content_digests(images) == before


def test_a_file_that_cannot_be_read_is_named(images):
    images[1].unlink()
    with pytest.raises(UserError, match=r"cat/1\.bmp cannot be read \(No such file"):
        cache.content_digests(images)


def test_a_model_is_its_files_or_its_name(checkout):
    folder = checkout / "model/unet"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"1")
    before = cache.model_digest("model")
    assert cache.model_digest("model") == before
    (folder / "weights").write_bytes(b"2")
    assert cache.model_digest("model") != before
    shutil.copytree(checkout / "model", checkout / "copy")
    assert cache.model_digest("copy") == cache.model_digest("model")
    folder.rename(checkout / "model/vae")
    assert cache.model_digest("copy") != cache.model_digest("model")
    assert cache.model_digest("") == ""
    assert cache.model_digest("someone/on-the-hub") == "someone/on-the-hub"


def test_weights_count_by_value_not_by_layout():
    first = cache.weights_digest(small(3, seed=0))
    assert cache.weights_digest(small(3, seed=0).to(memory_format=torch.channels_last)) == first
    assert cache.weights_digest(small(3, seed=1)) != first
    moved = small(3, seed=0)
    moved.network.bn1.running_mean += 1  # a buffer
    assert cache.weights_digest(moved) != first


def test_a_file_of_a_model_counts_with_what_lies_beside_it(checkout):
    encoder = checkout / "ip/image_encoder/weights"
    encoder.parent.mkdir(parents=True)
    encoder.write_bytes(b"1")
    (checkout / "ip/adapter.safetensors").write_bytes(b"2")
    before = cache.model_digest("ip/adapter.safetensors")
    encoder.write_bytes(b"3")
    assert cache.model_digest("ip/adapter.safetensors") not in (before, "ip/adapter.safetensors")

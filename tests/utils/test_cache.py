import pytest
import torch

from fgsynth.models.networks import small
from fgsynth.utils import cache


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


def test_a_model_is_its_files_or_its_name(checkout):
    folder = checkout / "model/unet"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"1")
    before = cache.model_digest("model")
    assert cache.model_digest("model") == before
    (folder / "weights").write_bytes(b"2")
    assert cache.model_digest("model") != before
    assert cache.model_digest("someone/on-the-hub") == "someone/on-the-hub"


def test_weights_count_by_value_not_by_layout():
    first = cache.weights_digest(small(3, seed=0))
    assert cache.weights_digest(small(3, seed=0).to(memory_format=torch.channels_last)) == first
    assert cache.weights_digest(small(3, seed=1)) != first
    moved = small(3, seed=0)
    moved.network.bn1.running_mean += 1  # a buffer
    assert cache.weights_digest(moved) != first

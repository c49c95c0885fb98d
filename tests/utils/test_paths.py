from pathlib import Path
from urllib.parse import unquote

import pytest

from fgsynth.utils import paths
from fgsynth.utils.errors import UserError


def test_root_is_found_from_the_root_and_from_below(root):
    assert paths.root(root) == root == paths.root(root / "notebooks")


def test_outside_a_checkout(tmp_path):
    with pytest.raises(UserError, match=r"No dvc\.yaml"):
        paths.root(tmp_path)


NAMES = ["a/b", "a-b", "..", ".", "...", ".hidden", "a\\b", "a ", " a", "a.", "%", "%25", "%2F", "a\nb", "\0",
         "é", "x" * 80, "a:b", "a*b?", '"a"', "a|b", "caf\udce9", "a b", "a_b"]  # fmt: skip


def test_different_names_are_different_files_from_which_they_come_back(tmp_path):
    files = [paths.file_name(name) for name in NAMES]
    for name, file in zip(NAMES, files, strict=True):
        (tmp_path / file).write_text(name, encoding="utf-8", errors="surrogateescape", newline="")
        assert unquote(file, errors="surrogatepass") == name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
    assert paths.file_name("a b-c (d), 0.5") == "a b-c (d), 0.5"
    assert paths.file_name("") not in ("", ".", paths.file_name("%"))


def test_a_tilde_is_the_home_folder(tmp_path, root, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(root / "notebooks")
    (tmp_path / "model").mkdir()
    assert paths.place("~/pics") == tmp_path / "pics"
    assert paths.from_root("~/model") == str(tmp_path / "model")
    assert paths.place("data/work") == root / "data/work"
    assert paths.place("/data") == Path("/data")
    assert paths.home("pics") == Path("pics")
    assert paths.from_root("someone/model") == "someone/model"
    assert paths.home("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


@pytest.mark.parametrize("read", [paths.read_text, paths.read_json, paths.read_csv])
def test_what_cannot_be_read_is_named(read, tmp_path):
    path = tmp_path / "some.file"
    for damage, sentence in (
        (lambda: None, "is missing: restore it"),
        (path.mkdir, "is a folder|Is a directory"),
        (lambda: (path.rmdir(), path.write_bytes(b"a,b\n\xe9,1\n")), "UTF-8|utf-8"),
        (lambda: path.write_text(""), None if read is paths.read_text else "is no"),
    ):
        damage()
        if sentence:
            with pytest.raises(UserError, match=rf"some\.file.*({sentence})"):
                read(path)
    path.write_text("[1]")
    with pytest.raises(UserError, match=r"some\.file holds no JSON object"):
        paths.read_json(path)


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "a" / "x.txt"
    paths.write_text(path, "old")

    def fails():
        with paths.atomic(path) as partial:
            partial.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fails()
    assert path.read_text() == "old\n"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "a").write_text("a file")
    with pytest.raises(UserError, match=r"Cannot write into .*a"):
        paths.write_text(tmp_path / "a" / "x.txt", "text")

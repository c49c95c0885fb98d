import pytest

from fgsynth.utils import paths
from fgsynth.utils.errors import UserError


def test_root_is_found_from_the_root_and_from_below(root):
    assert paths.root(root) == root == paths.root(root / "notebooks")


def test_outside_a_checkout(tmp_path):
    with pytest.raises(UserError, match=r"No dvc\.yaml"):
        paths.root(tmp_path)


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

import pandas as pd
import pytest
from PIL import Image

from fgsynth import paths
from fgsynth.errors import UserError


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


def test_a_figure_carries_its_caption(checkout):
    import matplotlib.pyplot as plt

    out = paths.Output("toy_2d", "smoke", "scratch/reports", "scratch/runs")
    out.figure("f", plt.figure(figsize=(1, 1)), pd.DataFrame({"x": [1 / 3]}), "What it shows.")
    folder = checkout / "scratch/reports/figures/toy_2d"
    with Image.open(folder / "f.png") as image:
        assert image.text["Description"] == "What it shows."
    assert (folder / "f.csv").read_text() == "x\n0.333333\n"

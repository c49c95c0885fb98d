import matplotlib.pyplot as plt
import pandas as pd
import pytest
from PIL import Image

from fgsynth.evaluate import tables
from fgsynth.evaluate.output import Output
from fgsynth.utils.errors import UserError


def test_a_figure_carries_its_caption(checkout):
    out = Output("toy_2d", "smoke", "scratch/reports", "scratch/runs")
    out.figure("f", plt.figure(figsize=(1, 1)), pd.DataFrame({"x": [1 / 3]}), "What it shows.")
    folder = checkout / "scratch/reports/toy_2d/figures"
    with Image.open(folder / "f.png") as image:
        assert image.text["Description"] == "What it shows."
    assert (folder / "f.csv").read_text() == "x\n0.333333\n"
    plt.close("all")


def test_comparisons_are_checked_and_get_their_scale(checkout):
    out = Output("toy_2d", "smoke", "scratch/reports", "scratch/runs")
    rows = pd.DataFrame({"benchmark": ["b"], "method": "ERM", "reference": "IRM", "metric": "few",
                         "mean": 1 / 3, "low": 0.0, "high": 1.0, "seeds": 3, "split": "test"})  # fmt: skip
    out.comparisons(rows)
    path = checkout / "scratch/reports/toy_2d/comparisons.csv"
    header, line = path.read_text().splitlines()
    assert header.split(",") == tables.COMPARED
    assert line == "smoke,b,ERM,IRM,few,0.333333,0,1,3,test"
    with pytest.raises(UserError, match="ends the wrong way round"):
        out.comparisons(rows.assign(low=2.0))
    assert list(path.parent.iterdir()) == [path]
    assert path.read_text().endswith(line + "\n")

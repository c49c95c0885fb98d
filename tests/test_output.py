import matplotlib.pyplot as plt
import pandas as pd
from PIL import Image

from fgsynth.output import Output


def test_a_figure_carries_its_caption(checkout):
    out = Output("toy_2d", "smoke", "scratch/reports", "scratch/runs")
    out.figure("f", plt.figure(figsize=(1, 1)), pd.DataFrame({"x": [1 / 3]}), "What it shows.")
    folder = checkout / "scratch/reports/figures/toy_2d"
    with Image.open(folder / "f.png") as image:
        assert image.text["Description"] == "What it shows."
    assert (folder / "f.csv").read_text() == "x\n0.333333\n"

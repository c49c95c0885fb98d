import io
import os
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

from fgsynth.evaluate import figures


def test_bands_of_percentages_end_at_0_and_100():
    assert figures.percent(np.array([90.0, 99.0, 100.0]))[1] == 100
    assert figures.percent(np.array([0.0, 1.0, 9.0]))[0] == 0
    low, high = figures.band(np.array([0.0, 1.0, 9.0]))
    assert low < 0 < high < 100
    data = pd.DataFrame({"x": 0.0, "y": [90.0, 99.0, 100.0], "hue": "entropy"})
    for ylabel, within in (("accuracy (%)", True), ("count", False)):
        _, ax = plt.subplots()
        figures.curves(ax, pd.concat([data, data.assign(x=1.0)]), "x", "y", "hue", ylabel)
        assert (ax.collections[0].get_paths()[0].vertices[:, 1].max() <= 100) == within
    plt.close("all")


KERNEL = """
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.instance()
from fgsynth.evaluate import figures
figures.use_style()
import matplotlib.pyplot as plt
plt.figure()
from matplotlib_inline.backend_inline import show
print(plt.isinteractive(), show._draw_called)
"""


def test_the_kernel_shows_no_figure_by_itself(root):
    backend = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", KERNEL]
    done = subprocess.run(command, env=os.environ | backend, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_slider_is_a_widget_and_an_image(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", lambda bundle, **options: shown.append((bundle, options)))
    values = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]

    def draw(value):
        figure, ax = plt.subplots(figsize=(1, 1))
        ax.set_title(str(value))
        return figure

    InteractiveShell.instance()
    plt.close("all")  # of other tests
    figures.slider(draw, values, "w", "What is drawn.")
    ((bundle, options),) = shown
    assert options["metadata"]["image/png"]["alt"] == "What is drawn."
    assert "application/vnd.jupyter.widget-view+json" in bundle
    with Image.open(io.BytesIO(bundle["image/png"])) as strip:
        width, height = strip.size
    assert 1.6 < width / height < 2.2  # four in a row, two rows
    assert not plt.get_fignums()


def test_slider_and_images_are_linked_in_the_browser(monkeypatch):
    made, linked = [], []
    box, link = figures.ipywidgets.VBox, figures.ipywidgets.jslink
    monkeypatch.setattr(figures.ipywidgets, "VBox", lambda children: made.append(children) or box(children))
    monkeypatch.setattr(figures.ipywidgets, "jslink", lambda *ends: linked.append(ends) or link(*ends))
    monkeypatch.setattr(figures, "display", lambda bundle, **options: None)
    figures.slider(lambda v: plt.figure(figsize=(1 + v, 1)), [0.0, 1.0], "w", "alt")
    control, stack = made[0]
    assert linked == [((control, "index"), (stack, "selected_index"))]
    assert len({image.value for image in stack.children}) == len(control.options) == 2


@pytest.mark.parametrize("w", [[1.0, 0.0], [1.0, -0.5], [0.3, 2.0]])
def test_the_boundary_is_where_the_logits_are_equal(w):
    weight, bias = torch.tensor([[0.0, 0.0], w]), torch.tensor([0.2, -0.1])
    _, ax = plt.subplots()
    figures.plane(ax, torch.zeros(2, 2), torch.tensor([0, 1]), weight, bias)
    line = ax.lines[-1]
    for point in (line.get_xy1(), line.get_xy2()):
        assert np.dot(w, point) + float(bias[1] - bias[0]) == pytest.approx(0, abs=1e-6)
    assert line.get_xy1() != line.get_xy2()
    plt.close("all")


def test_over_seeds_is_mean_and_half_width_in_the_order_of_the_rows():
    wide = pd.DataFrame({"method": [*"bbb", *"aa"], "few": [1.0, 2.0, 3.0, 5.0, 5.0],
                         "many": [1.0, None, 2.0, 2.0, 2.0], "seed": [0, 1, 2, 0, 1]})  # fmt: skip
    text = figures.over_seeds(wide, ["few", "many"], "method")
    assert text.index.tolist() == ["b", "a"]
    assert text["few"].tolist() == ["2.00 ± 2.48", "5.00 (n = 2)"]  # t(0.975, 2) / sqrt(3) = 2.484
    assert text["many"].tolist() == ["", "2.00 (n = 2)"]


def accuracies(**changes):
    rows = [{"amount": x, "seed": s, "overall": 10 * x + s, "many": 20 * x + s, "medium": 30.0, "few": 40.0}
            for x in (0.0, 1.0) for s in (0, 2)]  # fmt: skip
    return pd.DataFrame(rows).assign(**changes)


def test_strata_are_curves_of_means_over_seeds():
    figure = figures.strata_curves(accuracies(), "amount", "times the missing images")
    (ax,) = figure.axes
    means = {line.get_color(): line.get_ydata().tolist() for line in ax.lines if len(line.get_xdata()) == 2}
    expected = {"overall": [1, 11], "many": [1, 21], "medium": [30, 30], "few": [40, 40]}
    assert means == {figures.STRATA[name]: values for name, values in expected.items()}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(figures.STRATA)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("times the missing images", "accuracy (%)")
    plt.close("all")


def test_an_empty_stratum_leaves_the_others_in_place():
    (ax,) = figures.strata_curves(accuracies(medium=np.nan), "amount", "x").axes
    drawn = [line.get_ydata().tolist() for line in ax.lines if len(line.get_xdata()) == 2]
    assert [40, 40] in drawn
    assert [30, 30] not in drawn
    plt.close("all")


def test_gains_are_points_with_their_intervals_one_line_each():
    rows = [("base", "base", "few", 1.0, 0.5, 2.0), ("scale", "0.1", "few", -1.0, -4.0, 0.0),
            ("scale", "0.1", "rare", 3.0, 2.0, 5.0)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["factor", "value", "metric", "mean", "low", "high"])
    figure = figures.gains(table, ["few", "rare"])
    few, rare = figure.axes
    assert [label.get_text() for label in few.get_yticklabels()] == ["base", "scale: 0.1"]
    assert few.yaxis_inverted()
    assert [ax.get_xlabel() for ax in (few, rare)] == ["few (points)", "rare (points)"]
    points, _, (bars,) = few.containers[0]
    assert points.get_xydata().tolist() == [[1, 0], [-1, 1]]
    assert [segment.tolist() for segment in bars.get_segments()] == [[[0.5, 0], [2, 0]], [[-4, 1], [0, 1]]]
    assert rare.containers[0][0].get_xdata()[1] == 3
    assert np.isnan(rare.containers[0][0].get_xdata()[0])  # not measured at the base
    plt.close("all")

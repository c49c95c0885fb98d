import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

from fgsynth import figures


def test_the_slider_is_a_widget_and_a_picture(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", lambda bundle, raw: shown.append(bundle))
    values = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]

    def draw(value):
        figure, ax = plt.subplots(figsize=(1, 1))
        ax.set_title(str(value))
        return figure

    InteractiveShell.instance()
    figures.slider(draw, values, "w")
    (bundle,) = shown
    assert "application/vnd.jupyter.widget-view+json" in bundle
    with Image.open(io.BytesIO(bundle["image/png"])) as strip:
        width, height = strip.size
    assert width > 4 * height / 2  # five in a row, two rows
    assert not plt.get_fignums()


def test_slider_and_pictures_are_linked_in_the_browser(monkeypatch):
    made, linked = [], []
    box, link = figures.ipywidgets.VBox, figures.ipywidgets.jslink
    monkeypatch.setattr(figures.ipywidgets, "VBox", lambda children: made.append(children) or box(children))
    monkeypatch.setattr(figures.ipywidgets, "jslink", lambda *ends: linked.append(ends) or link(*ends))
    monkeypatch.setattr(figures, "display", lambda bundle, raw: None)
    figures.slider(lambda v: plt.figure(figsize=(1 + v, 1)), [0.0, 1.0], "w")
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

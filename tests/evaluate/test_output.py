import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fgsynth.evaluate import output, tables
from fgsynth.evaluate.output import Output
from fgsynth.utils.errors import UserError


@pytest.fixture
def out(checkout):
    return Output("toy_2d", "smoke", "scratch/reports", "scratch/runs")


@pytest.fixture
def shown(monkeypatch):
    """What was displayed: (bundle, metadata)."""
    calls = []
    monkeypatch.setattr(output, "display", lambda of, metadata, raw: calls.append((of, metadata)))
    return calls


def lines(n):
    figure, ax = plt.subplots(figsize=(1, 1))
    ax.plot(np.random.default_rng(0).normal(size=n), ".")
    return figure


def test_a_figure_is_shown_once_with_its_caption_and_alt_text(out, shown):
    out.figure("f", lines(3), pd.DataFrame({"x": [1 / 3]}), "What it says (C1).", "What is drawn.")
    ((bundle, metadata),) = shown
    assert bundle["image/png"].startswith(b"\x89PNG")
    told = {"alt": "What is drawn.", "caption": "What it says (C1).", "figure": "f"}
    assert metadata == {"image/png": told}
    assert not plt.get_fignums()
    assert (out.folder / "figures/f.csv").read_text() == "x\n0.333333\n"


def test_few_marks_are_drawn_as_svg_many_and_images_as_png(out, shown):
    data = pd.DataFrame({"x": [1]})
    with_image, ax = plt.subplots(figsize=(1, 1))
    ax.imshow(np.zeros((2, 2)))
    for name, figure in (("few", lines(3)), ("many", lines(5000)), ("image", with_image)):
        out.figure(name, figure, data, "Caption.", "alt")
    made = sorted(path.name for path in (out.folder / "figures").iterdir() if path.suffix != ".csv")
    assert made == ["few.svg", "image.png", "many.png"]
    with Image.open(out.folder / "figures/many.png") as image:
        assert image.text["Description"] == "Caption."
    first = (out.folder / "figures/few.svg").read_bytes()
    out.figure("few", lines(3), data, "Caption.", "alt")
    assert (out.folder / "figures/few.svg").read_bytes() == first
    assert b"Caption." in first


def test_sprites_are_a_grid_pixel_by_pixel(out):
    images = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 5, 3), dtype=np.uint8)
    out.sprites("grid", images, pd.DataFrame({"row": [0]}))
    with Image.open(out.folder / "figures/grid.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape == (8, 15, 3)
    assert (pixels[4:8, 10:15] == images[1, 2]).all()
    assert (out.folder / "figures/grid.csv").read_text() == "row\n0\n"


def test_comparisons_are_checked_and_get_their_scale(out, checkout):
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

import re
import xml.etree.ElementTree as ET

import nbformat
import pytest

from fgsynth.config.stages import NOTEBOOKS
from fgsynth.evidence import formulas


def test_a_drawing_holds_its_formula_upright_on_the_line_of_the_text():
    (fraction, letter) = (ET.fromstring(formulas.svg(tex)) for tex in (r"\frac{1}{2}", "x"))
    assert float(fraction.get("height")) > 1.5 * float(letter.get("height")) > 0
    left, top, _, height = map(float, fraction.get("viewBox").split())
    numbers = [float(v) for v in re.findall(r"-?\d+\.\d+", fraction[0].get("d"))]
    assert left == pytest.approx(min(numbers[::2]), abs=0.02)
    assert top == pytest.approx(-max(numbers[1::2]), abs=0.02)
    depth = float(re.search(r"vertical-align:(-?[\d.]+)px", fraction.get("style"))[1])
    assert depth < 0
    assert depth == pytest.approx(-(top + height), abs=0.02)
    assert formulas.svg("x") == formulas.svg("x")


def test_tex_that_cannot_be_drawn_stays():
    assert formulas.drawn(r"a $\nosuch$ b") == r"a $\nosuch$ b"
    assert formulas.drawn("costs 5 $") == "costs 5 $"


@pytest.mark.parametrize("name", NOTEBOOKS.values())
def test_every_formula_of_the_notebooks_can_be_drawn(root, name):
    nb = nbformat.read(root / f"notebooks/{name}.ipynb", as_version=4)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            assert "$" not in re.sub(r"<svg.*?</svg>", "", formulas.drawn(cell.source))

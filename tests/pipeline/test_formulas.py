import re
import xml.etree.ElementTree as ET

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from fgsynth.config.stages import NOTEBOOKS
from fgsynth.pipeline import formulas, notebook


def test_formulas_become_drawings_in_the_page_and_stay_tex_in_the_notebook():
    nb = new_notebook(
        cells=[new_markdown_cell("- so $x_0$ is\n\n$$\\frac{a}{b}\n= c$$"), new_code_cell("'$y$'")]
    )
    body = notebook.to_html_body(nb)
    names = [ET.fromstring(svg).get("aria-label") for svg in re.findall(r"<svg.*?</svg>", body)]
    assert names == ["x_0", "\\frac{a}{b} = c"]
    assert "$y$" in body
    assert nb.cells[0].source.startswith("- so $x_0$")


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

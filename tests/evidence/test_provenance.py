import json

import pandas as pd
import pytest
from tiny_results import tidy

from fgsynth.evaluate import tables
from fgsynth.evidence.notebooks import executed
from fgsynth.evidence.pieces import BY_DRAW, STORED, Comparison, Found
from fgsynth.evidence.provenance import SHOWS, SHOWS_DRAW, SHOWS_TERMS, STORES, Origins, _ranges

FG, ERM = "LDM-FG (Entropy)", "ERM"
ASKED = Comparison("printed", "imagenet_lt", "few", FG, ERM)
HEAD = "<tr><th></th><th>few</th><th>many</th></tr>"


def row(name, *cells):
    return f"<tr><th>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def run(reports, target, rows, shown, compared=None, commit="abc", scale="evening"):
    """A stage's folder, as the runner publishes it; shown: HTML, or text, of its one output."""
    folder = reports / scale / target
    folder.mkdir(parents=True)
    (folder / "results.csv").write_text(tables.to_csv(rows.drop(columns="draw")))
    if compared is not None:
        (folder / "comparisons.csv").write_text(tables.comparisons_to_csv(compared))
    (folder / "run.json").write_text(json.dumps({"commit": commit}))
    kind = "text/html" if shown.startswith("<") else "text/plain"
    cells = [
        {"id": "head", "cell_type": "markdown", "source": ["# 04 · x"]},
        {"id": "look", "cell_type": "code", "source": ["x"], "outputs": [{"data": {kind: [shown]}}]},
        {"id": "save", "cell_type": "code", "source": ["out.results(x)\nout.comparisons(y)"], "outputs": []},
    ]
    (folder / "04_imagenet_lt.ipynb").write_text(json.dumps({"cells": cells}))


def piece(root, reports, asked=ASKED):
    found = Found(tables.read_all(reports), tables.read_comparisons(reports), root / "data" / "paper")
    return found.piece(asked)


RESULTS = tidy("imagenet_lt", "evening", **{f"{FG}:few": [52.0, 54.0], f"{ERM}:few": [6.0, 7.0]})


@pytest.mark.parametrize(
    ("shown", "cell", "does"),
    [
        (f"<table>{HEAD}{row(FG, 53.0, 1.5)}{row(ERM, '6.50 ± 6.35', 2.5)}</table>", "look", SHOWS_TERMS),
        (f"<table>{HEAD}{row(FG, 1.5, 53.0)}{row(ERM, 2.5, 6.5)}</table>", "save", STORES),  # of many
        (f"<table>{HEAD}{row(FG, 53.1, 1.5)}{row(ERM, 6.5, 2.5)}</table>", "save", STORES),  # another number
        (f"<table>{HEAD}{row(FG, 53.0, 1.5)}</table>", "save", STORES),  # half of it
        (f"<table>{row(0, FG, ERM, 'few', 46.5)}</table>", "look", SHOWS),
        (f"<table>{row(0, ERM, FG, 'few', -46.50)}</table>", "look", SHOWS),
        (f"<table>{row(0, FG, ERM, 'overall', 46.5)}</table>", "save", STORES),
        (f"        few   many\nmethod\n{FG}   53.00   1\n{ERM}   6.50 (n = 2)   2\n", "look", SHOWS_TERMS),
        ("nothing", "save", STORES),
    ],
)  # fmt: skip
def test_a_cell_shows_a_number_where_methods_metric_and_digits_stand_together(
    tmp_path, root, shown, cell, does
):
    run(tmp_path, "imagenet_lt", RESULTS, shown)
    origin = Origins(executed(tmp_path)).of_piece(piece(root, tmp_path))
    (place,) = origin.places
    assert (place.page, place.cell) == (f"site/notebooks/evening-imagenet_lt.html#{cell}", does)
    assert (place.file, place.lines) == ("evening/imagenet_lt/results.csv", "2-5")
    assert origin.rule == "split: final; selection: last epoch; seeds: 0-1; commit abc"


def test_a_stored_comparison_has_its_own_line_and_the_seeds_of_its_methods(tmp_path, root):
    pair = dict(scale="evening", benchmark="imagenet_lt", method=ERM, reference=FG, metric="few",
                mean=-46.5, low=-50, high=-43, seeds=2, split="final")  # fmt: skip
    other = pair | {"metric": "overall"}
    shown = f"<table>{row(7, ERM, FG, 'few', -46.5)}</table>"
    run(tmp_path, "imagenet_lt", RESULTS, shown, pd.DataFrame([other, pair]), commit="abcdef123456-dirty")
    found = piece(root, tmp_path)
    assert found.estimate.kind == STORED
    origin = Origins(executed(tmp_path)).of_piece(found)
    assert origin.line["source"] == "evening/imagenet_lt/comparisons.csv:3"
    assert (origin.seed, origin.line["cell"]) == ("0-1", SHOWS)
    assert origin.rule.endswith("commit abcdef123-dirty")


def test_a_number_of_several_draws_has_the_lines_and_the_cell_of_each(tmp_path, root):
    for draw, add in ((0, 0.0), (1, 3.0)):
        rows = RESULTS.assign(seed=RESULTS["seed"] + 10 * draw, value=RESULTS["value"] + add)
        shown = f"<table>{HEAD}{row(FG, 53 + add, 0.5)}{row(ERM, 6.5 + add, 0.5)}</table>"
        run(tmp_path, f"imagenet_lt_{draw}", rows, shown, commit=f"c{draw}")
    found = piece(root, tmp_path)
    assert found.estimate.kind == BY_DRAW
    origin = Origins(executed(tmp_path)).of_piece(found)
    assert [p.page for p in origin.places] == [
        f"site/notebooks/evening-imagenet_lt_{draw}.html#look" for draw in (0, 1)
    ]
    assert {p.cell for p in origin.places} == {SHOWS_TERMS}
    assert (origin.seed, origin.commits) == ("0-1,10-11", ("c0", "c1"))
    number = Origins(executed(tmp_path)).of_number("evening", "imagenet_lt", ERM, "few")
    assert [(p.lines, p.cell) for p in number.places] == [("4-5", SHOWS_DRAW)] * 2


def test_nothing_is_known_of_what_was_not_run_or_has_no_notebook(tmp_path, root):
    found = piece(root, tmp_path)
    assert Origins([]).of_piece(found) is None
    run(tmp_path, "imagenet_lt", RESULTS, "")
    (tmp_path / "evening/imagenet_lt/04_imagenet_lt.ipynb").unlink()
    assert Origins(executed(tmp_path)).of_piece(piece(root, tmp_path)) is None
    assert Origins([]).of_number("mini", "imagenet_lt", ERM, "few") is None


def test_lines_that_follow_each_other_are_told_as_ranges():
    assert _ranges([7, 2, 4, 3, 9]) == "2-4,7,9"
    assert _ranges([]) == ""

"""The notebooks as they are committed: short cells, prose, parameters, nothing hidden."""

import ast
import re

import pytest
import yaml
from imports import closure, modules_used, outside

from fgsynth.config import params
from fgsynth.config.stages import NOTEBOOKS
from fgsynth.pipeline import notebook
from fgsynth.pipeline.runner import INJECTED, PARTS


@pytest.fixture(params=NOTEBOOKS.items(), ids=NOTEBOOKS.get)
def nb(request, root):
    stage, name = request.param
    return stage, notebook.read(root / "notebooks" / f"{name}.ipynb"), root / "notebooks" / f"{name}.ipynb"


def code(nb):
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def test_the_parameters_cell_is_exactly_the_stages_model(nb):
    stage, content, path = nb
    declared = {
        name: value for name, value in notebook.parameters(content, path).items() if name not in PARTS
    }
    assert list(declared) == [*INJECTED, *params.Stages.model_fields[stage].annotation.model_fields]
    assert declared["scale"] == "smoke"
    assert declared["reports"].startswith("scratch/")
    params.check_stage(stage, {k: v for k, v in declared.items() if k not in INJECTED}, str(path))


def test_cells_are_short_and_prose_comes_first(nb):
    _, content, path = nb
    cells = code(content)
    assert content.cells[0].source.startswith(f"# {path.stem[:2]} · ")
    assert len(content.cells) - len(cells) >= 0.6 * len(cells)
    for cell in cells:
        lines = cell.source.splitlines()
        # papermill reads one parameter per line; dictionaries go over several.
        assert len(lines) <= (40 if "parameters" in cell.metadata.get("tags", []) else 16), cell.source
        assert max(map(len, lines)) <= 82, cell.source


def test_it_is_tidy_and_has_outputs_for_nbval_to_check(nb):
    _, content, path = nb
    assert notebook.to_text(notebook.clean(content, keep_checked=True)) == path.read_text().rstrip("\n")
    checked = [cell for cell in code(content) if notebook.CHECKED in cell.metadata.get("tags", [])]
    assert checked
    assert [cell for cell in code(content) if cell.outputs] == checked


def test_every_figure_has_a_caption_and_an_alt_text(nb):
    _, content, _ = nb
    needs = {"out.figure": {"alt", "caption"}, "figures.slider": {"alt"}}
    nodes = [node for cell in code(content) for node in ast.walk(ast.parse(cell.source))]
    calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) in needs]
    assert calls
    for call in calls:
        assert {word.arg for word in call.keywords} >= needs[ast.unparse(call.func)], ast.unparse(call)


def of_stage(root, stage):
    """The dependencies of a stage, those on code named below fgsynth/ and the others."""
    deps = yaml.safe_load((root / "dvc.yaml").read_text())["stages"][stage]["deps"]
    code = [d.removeprefix("fgsynth/").removesuffix(".py") for d in deps if d.startswith("fgsynth/")]
    return tuple(code), {d for d in deps if not d.startswith("fgsynth/")}


def covers(rooms, run):
    """Whether rooms and modules hold all the code that is run, and none of them is there for nothing."""
    assert outside(run, rooms) == set()
    assert [room for room in rooms if outside(run, (room,)) == run] == []


def test_a_stage_depends_on_all_the_code_it_runs(nb, root):
    stage, content, path = nb
    rooms, others = of_stage(root, stage)
    covers(rooms, closure(root, modules_used(root, "\n".join(cell.source for cell in code(content)))))
    assert {f"data/notebooks/{path.name}", "requirements.lock"} <= others


def test_a_stage_of_scale_evening_depends_on_all_the_code_it_runs(nb, root):
    stage, content, _ = nb
    of = yaml.safe_load((root / "reports/evening/dvc.yaml").read_text())["stages"]["evening"]
    rooms = tuple(d.removeprefix("fgsynth/") for d in of["do"]["deps"] if d.startswith("fgsynth/"))
    used = modules_used(root, "\n".join(cell.source for cell in code(content)))
    if stage in {one["stage"] for one in of["foreach"].values()}:
        assert outside(closure(root, used), rooms) == set()


@pytest.mark.parametrize(
    ("stage", "module"),
    [
        ("report", "evidence/report"), ("pretrain", "pretrain/train"), ("model_card", "pretrain/card"),
        ("benchmark", "cost/table5"), ("feedback_map", "evaluate/phase_map"),
        ("variance", "experiments/variance"),
    ],
)  # fmt: skip
def test_a_command_depends_on_all_the_code_it_runs(root, stage, module):
    rooms, _ = of_stage(root, stage)
    covers(rooms, closure(root, {f"fgsynth/{module}.py"}))


def test_a_draw_of_the_map_depends_on_all_the_code_it_runs(root):
    of = yaml.safe_load((root / "reports/evening/dvc.yaml").read_text())["stages"]["map"]["do"]["deps"]
    rooms = tuple(d.removeprefix("fgsynth/") for d in of if d.startswith("fgsynth/"))
    covers(rooms, closure(root, {"fgsynth/beyond/phase_map.py"}))


def test_a_stage_names_its_experiments_one_by_one(root):
    """So that editing the toy plane leaves ImageNet-LT as it is."""
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    of_toy = {stage for stage in stages if "experiments/toy" in of_stage(root, stage)[0]}
    assert of_toy == {"toy_2d"}
    assert all("experiments" not in of_stage(root, stage)[0] for stage in stages)


REFERENCE = re.compile(
    r"""
    \$\$.*?\$\$ | \$[^$]*\$ | `[^`]*` | ^\#.*?$ | \[[^\]]*\]\([^)]*\)
    | \b(?:tables?|figures?|notebooks?|equations?|eqs?\.|sections?|appendix|steps?|stages?|rows?|seeds?)
      \s+(?:[A-Z]\.)?[A-Z]?\d[\d.a-z]*(?:\s*(?:,|and|to|or)\s+C?\d[\d.]*)*
    | \bC\d+\b | \b(?:19|20)\d\d\b | \([\d, ]+\)
    | \b(?:CIFAR|ResNet|ViT|Places|DPM-Solver|unCLIP)[\w+-]*(?:\(2M\)|\s2-1)?
    | \b\d+(?:th|st|nd|rd)\b
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
"""What has digits and states no number: mathematics, code, headings, links, references, years and names."""
DEFINED = {
    "01_toy_2d": ["a 90 % and a 10 % mode", "the 10 % modes", "at most 5 points below", "w = 0.03 is the"],
    "02_latent_probe": ["above 100 training images, *few* below 20", "one of the 5 nearest"],
    "03_ablations": ["of 30 steps", "moves the latent by 3 %", "are never at 0", "at w / 5", "batches of 64",
                     "*kept* is 100 %", "and 0"],
    "04_imagenet_lt": ["sets each of its units to 0", "is 0 or 1 per unit", "50 % is chance",
                       "0 is balanced softmax on", "1 fills every class",
                       "0 is plain cross entropy, 1 is balanced softmax"],
    "05_places_lt": ["fewer than 20 images"],
    "06_nicopp": ["0.03 is the best", "0 is the same sampler", "all beat 0"],
    "07_own_images": ["to 224 and run it on a GPU"],
    "08_beyond": ["0 is no feedback", "1.1 times unguided sampling", "K = 1"],
    "09_baselines": ["as many (*amount 1*)"],
    "10_own_features": [],
}  # fmt: skip
"""Numbers of prose that define or cite something. What is measured stands in tables, which follow results."""


def test_prose_states_no_number_that_was_measured(nb):
    _, content, path = nb
    for cell in content.cells:
        if cell.cell_type != "markdown":
            continue
        prose = " ".join(REFERENCE.sub(" ", cell.source).split()).replace("95 %", "")
        for phrase in DEFINED[path.stem]:
            prose = prose.replace(phrase, "")
        found = re.search(r".{0,40}(?<!\w)\d.{0,40}", prose)
        assert not found, found[0]

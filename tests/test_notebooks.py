"""The notebooks as they are committed: short cells, prose, parameters, nothing hidden."""

import pytest
import yaml
from imports import closure, modules_used

from fgsynth.config import params
from fgsynth.config.stages import NOTEBOOKS
from fgsynth.pipeline import notebook
from fgsynth.pipeline.runner import INJECTED


@pytest.fixture(params=NOTEBOOKS.items(), ids=NOTEBOOKS.get)
def nb(request, root):
    stage, name = request.param
    return stage, notebook.read(root / "notebooks" / f"{name}.ipynb"), root / "notebooks" / f"{name}.ipynb"


def code(nb):
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def test_the_parameters_cell_is_exactly_the_stages_model(nb):
    stage, content, path = nb
    declared = notebook.parameters(content, path)
    assert list(declared) == [*INJECTED, *params.Stages.model_fields[stage].annotation.model_fields]
    assert declared["scale"] == "smoke"
    assert declared["reports"].startswith("scratch/")
    params.check_stage(stage, {k: v for k, v in declared.items() if k not in INJECTED}, str(path))


def test_cells_are_short_and_prose_comes_first(nb):
    _, content, _ = nb
    cells = code(content)
    assert content.cells[0].source.startswith("# 0")
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


def test_a_stage_depends_on_all_the_code_it_runs(nb, root):
    stage, content, path = nb
    used = closure(root, modules_used(root, "\n".join(cell.source for cell in code(content))))
    deps = yaml.safe_load((root / "dvc.yaml").read_text())["stages"][stage]["deps"]
    assert {d for d in deps if d.startswith("fgsynth/")} == used
    assert {f"data/notebooks/{path.name}", "requirements.lock"} <= set(deps)


@pytest.mark.parametrize(
    ("stage", "module"),
    [
        ("report", "evidence/report"), ("pretrain", "pretrain/run"), ("model_card", "pretrain/measure"),
        ("benchmark", "cost/table5"),
    ],
)  # fmt: skip
def test_a_command_depends_on_all_the_code_it_runs(root, stage, module):
    deps = yaml.safe_load((root / "dvc.yaml").read_text())["stages"][stage]["deps"]
    assert {d for d in deps if d.endswith(".py")} == closure(root, {f"fgsynth/{module}.py"})

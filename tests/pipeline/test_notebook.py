import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fgsynth.pipeline import notebook
from fgsynth.pipeline.commands import main
from fgsynth.utils.errors import UserError


def tagged(source):
    return new_code_cell(source, metadata={"tags": ["parameters"]})


def saved_by_jupyterlab(nb):
    """What JupyterLab changes when the notebook is run and saved."""
    nb = nbformat.from_dict(nb)
    for i, cell in enumerate(nb.cells):
        cell.id = f"random{i}"
        cell.metadata["execution"] = {"iopub.status.busy": "2026-01-01T00:00:00"}
        if cell.cell_type == "code":
            cell.execution_count = 7 + i
            cell.outputs = [new_output("stream", text="hello")]
    nb.metadata["widgets"] = {"state": {}}
    nb.metadata["language_info"] = {"name": "python", "version": "3.99"}
    return nb


@pytest.fixture
def nb():
    return new_notebook(
        cells=[new_markdown_cell("# Title"), tagged("a = 1\nb = [0.5]"), new_code_cell("print(a)")]
    )


def test_cleaned_copy_does_not_see_a_run_in_jupyterlab(nb):
    assert notebook.to_text(notebook.clean(nb)) == notebook.to_text(notebook.clean(saved_by_jupyterlab(nb)))


def test_cleaned_copy_sees_every_change_of_the_source(nb):
    before = notebook.to_text(notebook.clean(nb))
    for i in range(3):
        other = nbformat.from_dict(nb)
        other.cells[i].source += " "
        assert notebook.to_text(notebook.clean(other)) != before
    nb.cells[1].metadata.tags = []
    assert notebook.to_text(notebook.clean(nb)) != before


def test_normalised_copy_has_no_times_ids_addresses_bars_or_live_widgets(nb):
    def executed(run):
        new = saved_by_jupyterlab(nb)
        new.metadata["papermill"] = {"start_time": run}
        widget = {"application/vnd.jupyter.widget-view+json": {"model_id": run}}
        new.cells[2].outputs = [
            new_output("stream", name="stderr", text=f"\r 10 % {run}"),
            new_output("execute_result", data={"text/plain": f"<Thing at 0x{run}>"}, execution_count=1),
            new_output("display_data", data=dict(widget)),
            new_output("display_data", data={**widget, "image/png": "abc"}),
            new_output("stream", name="stderr", text="a warning"),
        ]
        return notebook.normalise(new)

    first, second = executed("1111"), executed("2222")
    assert notebook.to_text(first) == notebook.to_text(second)
    outputs = first.cells[2].outputs
    assert len(outputs) == 3
    assert outputs[1].data == {"image/png": "abc"}
    assert outputs[2].text == "a warning"


def test_where_a_stream_was_flushed_does_not_show(nb):
    def pieces(*texts):
        nb.cells[2].outputs = [new_output("stream", text=text) for text in texts]
        return notebook.to_text(notebook.normalise(nb))

    assert pieces("ab", "c\n") == pieces("abc\n")


def test_tidying_keeps_only_the_outputs_that_are_checked(nb, tmp_path):
    path = tmp_path / "n.ipynb"
    saved = saved_by_jupyterlab(nb)
    saved.cells[2].metadata["tags"] = [notebook.CHECKED]
    nbformat.write(saved, path)
    assert main(["tidy", str(path)]) == 0
    tidy = notebook.read(path)
    assert [cell.get("execution_count") for cell in tidy.cells] == [None, None, 9]
    assert tidy.cells[1].outputs == []
    assert tidy.cells[2].outputs[0].text == "hello"
    assert notebook.clean(tidy) == notebook.clean(saved)


def test_parameters_are_read_as_literals(nb, tmp_path):
    assert notebook.parameters(nb, tmp_path) == {"a": 1, "b": [0.5]}


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ([new_code_cell("a = 1")], "has 0 cells tagged 'parameters'"),
        ([tagged("a = 1"), tagged("b = 1")], "has 2 cells tagged 'parameters'"),
        ([tagged("a = open('x')")], "name = literal"),
        ([tagged("import os")], "name = literal"),
        ([tagged("a, b = 1, 2")], "name = literal"),
        ([tagged("a = = 1")], "name = literal"),
    ],
)
def test_a_notebook_without_a_proper_parameters_cell(cells, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        notebook.parameters(new_notebook(cells=cells), tmp_path / "n.ipynb")


def test_missing_and_damaged_notebooks(tmp_path):
    path = tmp_path / "n.ipynb"
    with pytest.raises(UserError, match="is missing"):
        notebook.read(path)
    for text in ("", "{}", "not json"):
        path.write_text(text)
        with pytest.raises(UserError, match="not a readable notebook"):
            notebook.read(path)
    with pytest.raises(UserError, match="`07_own_pictures` is `07_own_images` now"):
        notebook.read(tmp_path / "07_own_pictures.ipynb")
    with pytest.raises(UserError, match="is a folder, where a file is needed"):
        notebook.read(tmp_path)

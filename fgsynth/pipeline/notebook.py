"""Notebooks as files: the cleaned copy a pipeline depends on, the normalised executed copy."""

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import read_text, write_text

PARAMETERS = "parameters"
CHECKED = "nbval-check-output"
_ADDRESS = re.compile(r"(?<= at )0x[0-9a-f]+")
_WIDGET = "application/vnd.jupyter.widget-view+json"


def read(path: Path) -> NotebookNode:
    """Read a notebook. Raises UserError naming the file if it is missing or damaged."""
    text = read_text(path)
    try:
        # `nbformat.read` only logs what is not valid.
        notebook = nbformat.convert(nbformat.reader.reads(text), 4)
        nbformat.validate(notebook)
    except (ValueError, nbformat.ValidationError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path} is not a readable notebook: restore it with 'git checkout {path}'."
        ) from error
    return notebook


def write_clean(path: Path, to: Path, *, keep_checked: bool = False) -> None:
    """Write the cleaned copy of a notebook, see `clean`."""
    write_text(to, to_text(clean(read(path), keep_checked=keep_checked)))


def clean(notebook: NotebookNode, *, keep_checked: bool = False) -> NotebookNode:
    """The source of a notebook alone: no outputs, counts, run metadata or random cell ids.

    Two notebooks with equal cleaned copies do the same thing, so a stage depends on this copy and
    running and saving a notebook in JupyterLab does not make the stage stale. `keep_checked` keeps
    the outputs that nbval compares, for the notebook as it is committed.
    """
    cells = []
    for i, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            continue
        new = _source(i, cell)
        if cell.cell_type == "code" and keep_checked and CHECKED in tags and cell.execution_count:
            new.update(outputs=_normal_outputs(cell), execution_count=cell.execution_count)
        cells.append(new)
    return _with_cells(cells)


def normalise(notebook: NotebookNode) -> NotebookNode:
    """An executed notebook without what differs between two identical runs.

    Times, random ids, memory addresses, progress bars and live widgets go; a widget's static
    image stays.
    """
    cells = []
    for i, cell in enumerate(notebook.cells):
        new = _source(i, cell)
        if cell.cell_type == "code":
            new.update(outputs=_normal_outputs(cell), execution_count=cell.execution_count)
        cells.append(new)
    return _with_cells(cells)


def _source(i: int, cell: NotebookNode) -> NotebookNode:
    tags = cell.metadata.get("tags", [])
    metadata = NotebookNode(tags=tags) if tags else NotebookNode()
    new = NotebookNode(id=f"cell-{i:02}", cell_type=cell.cell_type, metadata=metadata, source=cell.source)
    if cell.cell_type == "code":
        new.update(outputs=[], execution_count=None)
    return new


def _with_cells(cells: list[NotebookNode]) -> NotebookNode:
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return nbformat.from_dict({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def _normal_output(output: NotebookNode) -> NotebookNode | None:
    if output.output_type == "stream":
        if output.name == "stderr" and "\r" in output.text:
            return None
        return NotebookNode(output, text=_ADDRESS.sub("0x", output.text))
    if "data" not in output:
        return output
    data = {mime: value for mime, value in output.data.items() if mime != _WIDGET}
    if not data:
        return None
    plain = data.get("text/plain")
    if isinstance(plain, str):
        data["text/plain"] = _ADDRESS.sub("0x", plain)
    # Of what an output is told of its parts, alt texts and captions.
    told = {mime: value for mime, value in output.metadata.items() if mime in data}
    return NotebookNode(output, data=data, metadata=told)


def _normal_outputs(cell: NotebookNode) -> list[NotebookNode]:
    """Normal outputs, neighbouring pieces of one stream joined: where the kernel flushed is chance."""
    joined: list[NotebookNode] = []
    for output in filter(None, map(_normal_output, cell.outputs)):
        last = joined[-1] if joined else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def to_text(notebook: NotebookNode) -> str:
    """The notebook as text, keys sorted: equal notebooks give equal bytes."""
    return nbformat.writes(notebook)


def parameters(notebook: NotebookNode, path: Path) -> dict[str, Any]:
    """The names and values of the cell tagged `parameters`.

    Raises UserError if there is no such cell, more than one, or one with anything but literals.
    """
    cells = [c for c in notebook.cells if PARAMETERS in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise UserError(
            f"{path} has {len(cells)} cells tagged '{PARAMETERS}', needs one: tag the cell that holds them."
        )
    values = {}
    try:
        for statement in ast.parse(cells[0].source).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    values[name] = ast.literal_eval(value)
                case _:
                    raise ValueError("not an assignment to a name")
    except (SyntaxError, ValueError) as error:
        raise UserError(
            f"{path}: the cell tagged '{PARAMETERS}' may only hold lines of the form name = literal."
        ) from error
    return values

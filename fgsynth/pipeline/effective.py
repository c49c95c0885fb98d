"""The values that a stage runs with, each with the key of params.yaml that gives it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fgsynth.config.blocks import Key, Resolver, read
from fgsynth.config.params import Params, load
from fgsynth.config.stages import NOTEBOOKS
from fgsynth.pipeline import notebook
from fgsynth.pipeline.runner import INJECTED, PARTS

SCALELESS = ("pretrain", "feedback_map", "variance")
DEFAULT = "(default)"


def table(root: Path, stage: str, scale: str | None = None) -> str:
    """A line per value: its key, the key that `dvc exp run -S` changes it by, the value.

    scale: None is that of params.yaml. A value that params.yaml leaves to its default says so; at scale smoke
    the notebook gives those that it does not replace. Raises UserError for a stage or scale there is not.
    """
    path = root / "params.yaml"
    params, resolved = load(path).at(scale), Resolver(read(path), str(path)).resolve()
    place = (stage,) if stage in SCALELESS else (params.scale, stage)
    values, elsewhere = _values(params, place, root)
    written = {key: node.key for key, node in resolved.leaves()}
    lines = [("parameter", "set by", "value")]
    for key, value in _leaves(values):
        by = written.get((*place, *key))
        lines.append(
            (".".join(key), ".".join(by) if by else elsewhere, json.dumps(value, ensure_ascii=False))
        )
    key_width, by_width = (max(len(line[i]) for line in lines) for i in (0, 1))
    return "\n".join(f"{key:{key_width}}  {by:{by_width}}  {value}" for key, by, value in lines)


def _values(params: Params, place: Key, root: Path) -> tuple[dict[str, Any], str]:
    """What the stage runs with, and whose the values are that params.yaml does not give."""
    if len(place) == 1:
        return getattr(params, place[0]).model_dump(mode="json"), DEFAULT
    scale, stage = place
    given = params.overrides(stage)
    if scale != "smoke":
        return given, DEFAULT
    path = root / "notebooks" / f"{NOTEBOOKS[stage]}.ipynb"
    cell = notebook.parameters(notebook.clean(notebook.read(path)), path)
    values = {name: value for name, value in cell.items() if name not in (*INJECTED, *PARTS)}
    return values | given, f"notebooks/{path.name}"


def _leaves(value: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, dict) and value:
        for name, below in value.items():
            yield from _leaves(below, (*key, name))
    else:
        yield key, value

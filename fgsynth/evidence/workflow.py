"""The pipeline as it was run: what each stage needed and made, from DVC's locks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgsynth.config.blocks import read

LOCKS = ("dvc.lock", "reports/evening/dvc.lock")
SELF = "report"
"""The stage that writes the crate, which therefore knows nothing of its own files yet."""


@dataclass(frozen=True)
class Stage:
    """A stage as DVC locked it: command, paths of what it needs and makes, digests of what it makes."""

    name: str
    command: str
    needs: tuple[str, ...]
    makes: dict[str, str]


def stages(root: Path) -> list[Stage]:
    """The stages that were run and are locked, but for the report."""
    found = []
    for lock in LOCKS:
        if not (root / lock).is_file():
            continue
        for name, of in (read(root / lock).get("stages") or {}).items():
            if name != SELF:
                needs = tuple(str(dep["path"]) for dep in of.get("deps", []))
                makes = {str(out["path"]): str(out.get("md5", "")) for out in of.get("outs", [])}
                found.append(Stage(name.rpartition("@")[2], of["cmd"], needs, makes))
    return found


def edges(found: Sequence[Stage]) -> list[tuple[str, str]]:
    """Pairs of stages: the first makes something that the second needs."""
    return [
        (a.name, b.name)
        for b in found
        for a in found
        if a is not b and any(f"{need}/".startswith(f"{made}/") for need in b.needs for made in a.makes)
    ]


def drawn(found: Sequence[Stage]) -> dict[str, Any]:
    """Boxes and arrows of the stages of the default run, each right of all that it needs."""
    names = [stage.name for stage in found if "evening" not in stage.command and stage.name != "clean"]
    pairs = [(a, b) for a, b in edges(found) if a in names and b in names]
    depth = dict.fromkeys(names, 0)
    for _ in names:
        for a, b in pairs:
            depth[b] = max(depth[b], depth[a] + 1)
    rows: dict[int, int] = {}
    boxes: dict[str, dict[str, Any]] = {}
    for name in names:
        row = rows[depth[name]] = rows.get(depth[name], -1) + 1
        boxes[name] = {"name": name, "x": 2 + 170 * depth[name], "y": 2 + 34 * row}
    arrows = [(boxes[a]["x"] + 112, boxes[a]["y"] + 12, boxes[b]["x"], boxes[b]["y"] + 12) for a, b in pairs]
    width, height = 116 + 170 * max(rows, default=0), 4 + 34 * (max(rows.values(), default=0) + 1)
    return {"boxes": list(boxes.values()), "arrows": arrows, "width": width, "height": height}

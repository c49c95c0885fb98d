"""The pipeline as it was run: what each stage needed and made, from DVC's locks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fgsynth
from fgsynth.config.blocks import read
from fgsynth.evidence import page
from fgsynth.evidence.notebooks import Executed

LOCKS = ("dvc.lock", "reports/evening/dvc.lock")
CRATE = "ro-crate.json"
SELF = "report"
"""The stage that reads this, and whose own files are therefore not there yet."""


@dataclass(frozen=True)
class Stage:
    """A stage as DVC locked it: command, what it needs, what it makes with digests, and its bytes."""

    name: str
    command: str
    needs: tuple[str, ...]
    makes: dict[str, str]
    size: int = 0


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
                size = sum(int(out.get("size", 0)) for out in of.get("outs", []))
                found.append(Stage(name.rpartition("@")[2], of["cmd"], needs, makes, size))
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
    apart = "reports/evening/"
    mine = [stage for stage in found if not any(path.startswith(apart) for path in stage.makes)]
    names = [stage.name for stage in mine if stage.name != "clean"]
    pairs = [(a, b) for a, b in edges(mine) if a in names and b in names]
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


def crate(root: Path, ran: Sequence[Executed]) -> str:
    """The report as RO-Crate: what every stage's run made below reports/, and by which command.

    From a template, as four kinds of entities need no library, and tests follow every reference and file.
    ran: the notebooks, which know when and how long their stages ran.
    """
    runs = {f"reports/{one.scale}/{one.target}": one.run for one in ran}
    actions: list[dict[str, Any]] = []
    for stage in stages(root):
        paths = [path for path in stage.makes if path.startswith("reports/") and (root / path).exists()]
        if not paths:
            continue
        run: dict[str, Any] = next((runs[path] for path in paths if path in runs), {})
        took = [f"{run['seconds']} seconds"] if "seconds" in run else []
        how = ", ".join([*took, *(f"{k} {run[k]}" for k in ("commit", "machine") if run.get(k))])
        made = []
        for path in paths:
            kind, end = ("Dataset", "/") if (root / path).is_dir() else ("File", "")
            told = f"Made by stage {stage.name}; MD5 by DVC: {stage.makes[path]}"
            made.append({"id": path.removeprefix("reports/") + end, "kind": kind, "name": path, "told": told})
        name = f"Run of stage {stage.name}"
        action = {"id": f"#run-{made[0]['id']}", "name": name, "made": made, "date": run.get("date")}
        actions.append(action | {"told": stage.command + (f" ({how})" if how else "")})
    parts = [part for action in actions for part in action["made"]]
    dates = [action["date"] for action in actions if action["date"]]
    version = fgsynth.__version__
    return page.render(CRATE, actions=actions, parts=parts, date=max(dates, default=None), version=version)

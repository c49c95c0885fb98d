"""The report as RO-Crate: what every stage's run made, of what and by which command (Process Run Crate)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fgsynth
from fgsynth.evidence.notebooks import Executed
from fgsynth.evidence.workflow import Stage
from fgsynth.utils.paths import write_text

NAME = "ro-crate-metadata.json"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
TOOL = "#fgsynth"
Entity = dict[str, Any]


def write(reports: Path, stages: Sequence[Stage], ran: Sequence[Executed]) -> None:
    """Write the crate of the stages that made something below reports/; ran: when and how long they ran."""
    made = {stage.name: _made(reports, stage) for stage in stages}
    parts = [part for of in made.values() for part in of]
    runs = {(f"reports/{one.scale}/{one.target}"): one for one in ran}
    actions = [_action(stage, made[stage.name], runs) for stage in stages if made[stage.name]]
    dates = [one.run["date"] for one in ran if "date" in one.run]
    graph = [*_head(parts, actions, max(dates, default=None)), *parts, *actions]
    crate = {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}
    write_text(reports / NAME, json.dumps(crate, indent=1))


def _made(reports: Path, stage: Stage) -> list[Entity]:
    """Folders and files below reports/ that a stage made, with DVC's digests."""
    out = []
    for path, digest in stage.makes.items():
        place = reports.parent / path
        if path.startswith("reports/") and place.exists():
            kind, end = ("Dataset", "/") if place.is_dir() else ("File", "")
            described = f"Made by stage {stage.name}; MD5 by DVC: {digest}"
            entity = {"@id": path.removeprefix("reports/") + end, "@type": kind, "name": path}
            out.append(entity | {"description": described})
    return out


def _action(stage: Stage, made: list[Entity], runs: dict[str, Executed]) -> Entity:
    """The run of a stage."""
    one = next((runs[path] for path in stage.makes if path in runs), None)
    run = one.run if one else {}
    told = [
        f"{run['seconds']} seconds" if "seconds" in run else "",
        f"commit {run.get('commit') or 'unknown'}",
    ]
    entity = {
        "@id": f"#run-{stage.name}-{Path(made[0]['@id']).parts[0]}",
        "@type": "CreateAction",
        "name": f"Run of stage {stage.name}",
        "description": f"{stage.command} ({', '.join(filter(None, told))})",
        "instrument": {"@id": TOOL},
        "result": [{"@id": part["@id"]} for part in made],
    }
    return entity | ({"endTime": run["date"]} if "date" in run else {})


def _head(parts: list[Entity], actions: list[Entity], date: str | None) -> list[Entity]:
    """Descriptor, root and tool."""
    licence = {"@id": "https://spdx.org/licenses/MIT.html"}
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": "fgsynth: printed numbers beside ours",
        "description": "Results, figures, executed notebooks and verdicts of a companion to two papers on "
        "synthetic data for imbalanced classification.",
        "license": licence,
        "conformsTo": {"@id": PROFILE},
        "hasPart": [{"@id": part["@id"]} for part in parts],
        "mentions": [{"@id": action["@id"]} for action in actions],
    }
    tool = {
        "@id": TOOL,
        "@type": "SoftwareApplication",
        "name": "fgsynth",
        "softwareVersion": fgsynth.__version__,
        "description": "python -m fgsynth, run by DVC, which notes what goes in and comes out.",
        "license": licence,
    }
    return [
        {
            "@id": NAME,
            "@type": "CreativeWork",
            "about": {"@id": "./"},
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        },
        root | ({"datePublished": date} if date else {}),
        tool,
        {"@id": licence["@id"], "@type": "CreativeWork", "name": "MIT licence"},
        {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
    ]

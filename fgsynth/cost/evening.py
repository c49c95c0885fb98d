"""The stages of scale evening: what each is estimated to take on this machine, and what it took."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fgsynth.config import params
from fgsynth.config.blocks import read
from fgsynth.config.names import FG_ENTROPY, FILL_UP, TEXT, UNGUIDED, stage_and_draw, variant
from fgsynth.config.schema import Sampling, validated
from fgsynth.cost import estimate
from fgsynth.data.registry import WORLDS
from fgsynth.experiments.baselines import METHODS, TWICE
from fgsynth.generate import methods
from fgsynth.generate.plan import Method
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import read_json

SCALE = "evening"
STAGES = Path("reports") / SCALE / "dvc.yaml"
SECONDS = 60.0
"""Of the calibration."""


def listed(root: Path) -> str:
    """Tabulate the stages of scale evening by target: images, updates, hours, and hours when it was run.

    By a calibration of a minute on this machine, which is kept. What another stage made here before is
    counted again; second stages, learned words and the features of notebook 02 are not counted.
    """
    runs, totals = _runs(root), dict[str, tuple[int, int, float]]()
    for stage in dict.fromkeys(stage_and_draw(target)[0] for target in runs):
        parts = [estimate.total(part, SECONDS) for part in _parts(root, stage)]
        if parts:
            images, updates, took = zip(*parts, strict=True)
            totals[stage] = sum(images), sum(updates), sum(took)
    lines, hours = [("target", "images", "updates", "hours", "took", "commit")], 0.0
    for target, ran in runs.items():
        total = totals.get(stage_and_draw(target)[0])
        estimated = (f"{total[0]:,}", f"{total[1]:,}", f"{total[2]:.1f}") if total else ("-",) * 3
        lines.append((target, *estimated, *(ran or ("-", "-"))))
        hours += total[2] if total and not ran else 0.0
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    to_do = list(runs.values()).count(None)
    shown.append(f"{to_do} of {len(runs)} are to be run; those estimated take {hours:.1f} hours.")
    return "\n".join(shown)


def _parts(root: Path, stage: str) -> Iterator[estimate.Stage]:
    """What a stage makes and trains, by benchmark."""
    block = params.load(root / "params.yaml").at(SCALE).overrides(stage)
    if stage in WORLDS:
        made = methods.sets(stage, block, validated(Sampling, block["sampling"], "sampling"))
        yield estimate.part(stage, stage, block, made, methods.trainings(stage, block, made))
    if stage == "ablations":
        # Table 4's sets and classifiers, then those by the exact gradient at every 5th or every step.
        rows = methods.table_4_rows(validated(Sampling, block["sampling"], "sampling"))
        seeds, exact = (
            block["table_seeds"],
            {"n_steps": block["n_steps"], "every": 1, "through_network": True},
        )
        sets = {name: (method, 1.0) for name, method in rows.items()}
        yield estimate.part(stage, "imagenet_lt", block, sets, {True: seeds * len(sets), False: 1})
        block["sampling"] = block["sampling"] | exact
        steps = {FG_ENTROPY: (rows[FG_ENTROPY], 3.0)}
        yield estimate.part(stage, "imagenet_lt", block, steps, {True: 3 * seeds, False: 0})
    if stage in ("baselines", "beyond"):
        for name in block["worlds"]:
            each = block | {"world": block["worlds"][name]}
            each["sampling"] = block["sampling"] | {"fill_to": block["fill_to"][name]}
            each["training"] = block["training"] | block["changes"][name]
            yield estimate.part(stage, name, each, *_rows(stage, name, each))


def _rows(
    stage: str, name: str, block: Mapping[str, Any]
) -> tuple[dict[str, tuple[Method, float]], dict[bool, int]]:
    """Sets and trainings of notebooks 08 and 09 on a benchmark."""
    known, seeds = methods.methods(validated(Sampling, block["sampling"], "sampling")), block["seeds"][name]
    if stage == "beyond":
        loops = sum(
            len(block["loops"][name][kind]) for kind in ("continued", "restarted", "triggered", "early")
        )
        asked = block["methods"][name]
        # Closed loops make images for every classifier; all are counted as guided at a scale.
        made = {one: (known[UNGUIDED if one.startswith(UNGUIDED) else FG_ENTROPY], 1.0) for one in asked}
        if loops:
            made["loops"] = known[FG_ENTROPY], float(loops * seeds)
        return made, {True: seeds * (len(asked) + loops), False: 1}
    made = {one: (known[one], 1.0) for one in (UNGUIDED, FG_ENTROPY)}
    times = {FILL_UP: TWICE if name == "imagenet_lt" else 1.0, variant(FILL_UP, "amount", 1): 1.0}
    rows = (block["methods"] or METHODS)[name]
    made |= {one: (known[TEXT], times[one]) for one in rows if one in times}
    tries = seeds + (block["draws"] - 1 if name == "nicopp" else 0)
    # Beside them ERM, and balanced softmax in table 1.
    real = sum(one not in made for one in rows) + (2 if name == "imagenet_lt" else 1)
    return made, {True: tries * len(made), False: tries * real + 1}


def left(root: Path) -> list[str]:
    """The targets that were not run."""
    return [target for target, ran in _runs(root).items() if ran is None]


def _runs(root: Path) -> dict[str, tuple[str, str] | None]:
    """Hours and commit of the run that is there, by target; None where it was not run."""
    path = root / STAGES
    try:
        targets = list(read(path)["stages"][SCALE]["foreach"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} lists no stages of scale {SCALE}: restore it from git.") from error
    return {target: _run(root, target) for target in targets}


def _run(root: Path, target: str) -> tuple[str, str] | None:
    """Hours and commit of the run that is there."""
    path = root / "reports" / SCALE / target / "run.json"
    if not path.is_file():
        return None
    ran = read_json(path)
    return f"{ran['seconds'] / 3600:.1f}", ran["commit"][:9]

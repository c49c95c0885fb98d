"""The stages of scale evening: what each is estimated to take on this machine, and what it took."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from fgsynth.beyond import phase_map
from fgsynth.config import params
from fgsynth.config.blocks import read
from fgsynth.config.names import (
    CLOSED_LOOP,
    FG_ENTROPY,
    FILL_UP,
    TEXT,
    UNGUIDED,
    UNGUIDED_LOOP,
    Target,
    target,
    variant,
)
from fgsynth.config.schema import Sampling, validated
from fgsynth.cost import estimate
from fgsynth.data.registry import WORLDS
from fgsynth.experiments.baselines import METHODS, SHARED, TWICE
from fgsynth.generate import methods
from fgsynth.generate.plan import Method
from fgsynth.miniworld.render import SIDE
from fgsynth.train.recipe import Recipe
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import read_json

SCALE, MAP = "evening", "feedback_map"
STAGES = Path("reports") / SCALE / "dvc.yaml"
SECONDS = 60.0
"""Of the calibration."""


def listed(root: Path) -> str:
    """Tabulate the stages of scale evening by target: images, updates, hours, and hours when it was run.

    By a calibration of a minute on this machine, which is kept. What another stage made here before is
    counted again; second stages, learned words, the features of notebook 02 and the map's denoisers are not
    counted.
    """
    runs = {name: _run(root, name) for name in targets(root)}
    # Draws are equally large.
    kinds = {name: target(name)._replace(draw=None) for name in runs}
    totals = {kind: _total(root, kind) for kind in dict.fromkeys(kinds.values())}
    lines, hours = [("target", "images", "updates", "hours", "took", "commit")], 0.0
    for name, ran in runs.items():
        total = totals[kinds[name]]
        estimated = (f"{total[0]:,}", f"{total[1]:,}", f"{total[2]:.1f}") if total else ("-",) * 3
        lines.append((name, *estimated, *(ran or ("-", "-"))))
        hours += total[2] if total and not ran else 0.0
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    to_do = list(runs.values()).count(None)
    shown.append(f"{to_do} of {len(runs)} are to be run; those estimated take {hours:.1f} hours.")
    return "\n".join(shown)


def planned(root: Path, stage: str) -> str:
    """What a stage, or a draw of it, is estimated to take, in a sentence."""
    images, updates, hours = _total(root, target(stage)) or (0, 0, 0.0)
    return f"{stage}: {images:,} images, {updates:,} updates, {hours:.1f} hours by one process here"


def _total(root: Path, of: Target) -> tuple[int, int, float] | None:
    parts = [estimate.total(part, SECONDS) for part in _parts(root, of.stage, of.benchmark)]
    if not parts:
        return None
    images, updates, took = zip(*parts, strict=True)
    return sum(images), sum(updates), sum(took)


def _map(root: Path) -> Iterator[estimate.Stage]:
    """A draw of the map: its sets by the cheap gradient and its classifiers; its sets by the exact one."""
    s = params.load(root / "params.yaml").feedback_map
    # Every class gets as many images, whatever it has: as if none were there and one were missing.
    empty, kept = torch.zeros(sum(s.world.strata), 1), root / phase_map.WORK / estimate.KEPT
    for exact in (False, True):
        sampling = s.sampling.model_copy(update={"through_network": exact, "fill_to": 1})
        sets = {}
        for arm, each in phase_map.sizes(s).items():
            criteria = (arm.criterion,) if arm.criterion else ()
            method = Method(dropout=s.sampling.dropout, criteria=criteria, scale=arm.scale)
            # The first half of a refreshed guide's set is another's.
            if arm.exact == exact:
                sets[str(arm)] = method, each / (2 if arm.guide == "refreshed" else 1)
        trained = {True: 0 if exact else phase_map.trainings(s)}
        yield estimate.Stage(MAP, empty, SIDE, sampling, Recipe.of(s.training), sets, trained, kept)


def _parts(root: Path, stage: str, benchmark: str | None = None) -> Iterator[estimate.Stage]:
    """What a stage makes and trains, by benchmark, or on one alone."""
    if stage == MAP:
        yield from _map(root)
        return
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
        for name in [benchmark] if benchmark else block["worlds"]:
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
        loops, asked = len(block["loops"][name]), block["methods"][name]
        made = {one: (known[UNGUIDED if one.startswith(UNGUIDED) else FG_ENTROPY], 1.0) for one in asked}
        if loops:
            # Classifiers share the images of a loop without feedback, but not of one with it.
            made[CLOSED_LOOP] = known[FG_ENTROPY], float(loops * seeds)
            made[UNGUIDED_LOOP] = known[UNGUIDED], float(loops)
        return made, {True: seeds * (len(asked) + 2 * loops), False: 1}
    made = {one: (known[one], 1.0) for one in (UNGUIDED, FG_ENTROPY)}
    times = {FILL_UP: TWICE if name == "imagenet_lt" else 1.0, variant(FILL_UP, "amount", 1): 1.0}
    rows = (*SHARED[name], *(block["methods"] or METHODS)[name])
    made |= {one: (known[TEXT], times[one]) for one in rows if one in times}
    tries = seeds + (block["draws"] - 1 if name == "nicopp" else 0)
    real = sum(one not in made for one in rows)
    return made, {True: tries * len(made), False: tries * real + 1}


def left(root: Path) -> list[str]:
    """DVC's names of the targets that were not run."""
    return [name for target, name in targets(root).items() if _run(root, target) is None]


def targets(root: Path) -> dict[str, str]:
    """The targets, and what DVC calls them."""
    path = root / STAGES
    try:
        stages = read(path)["stages"]
        return {target: f"{name}@{target}" for name, of in stages.items() for target in of["foreach"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} lists no stages of scale {SCALE}: restore it from git.") from error


def _run(root: Path, target: str) -> tuple[str, str] | None:
    """Hours and commit of the run that is there."""
    path = root / "reports" / SCALE / target / "run.json"
    if not path.is_file():
        return None
    ran = read_json(path)
    return f"{ran['seconds'] / 3600:.1f}", ran["commit"][:9]

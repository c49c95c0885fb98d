"""The stages of scale evening: what each is estimated to take on this machine, and what it took."""

from pathlib import Path

from fgsynth.config.blocks import read
from fgsynth.config.names import stage_and_draw
from fgsynth.cost import estimate
from fgsynth.data.registry import WORLDS
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import read_json

SCALE = "evening"
STAGES = Path("reports") / SCALE / "dvc.yaml"
SECONDS = 60.0
"""Of the calibration."""


def listed(root: Path) -> str:
    """Tabulate the stages of scale evening by target: images, updates, hours, and hours when it was run.

    Estimated are those whose sets and classifiers `estimate` counts, by a calibration of a minute on this
    machine, which is kept.
    """
    runs = _runs(root)
    totals = {stage: estimate.total(stage, SCALE, SECONDS) for stage in WORLDS}
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

"""A draw of the map of when feedback helps, made and published."""

from pathlib import Path
from time import monotonic

from fgsynth.beyond.phase_map import of_params
from fgsynth.config.params import load
from fgsynth.cost import evening
from fgsynth.evaluate.phase_map import ROWS
from fgsynth.pipeline.runner import checked_out, note
from fgsynth.utils import paths


def run(root: Path, draw: int) -> None:
    """Write reports/evening/feedback_map_DRAW. Long; goes on where it was stopped."""
    commit, started = checked_out(root), monotonic()
    rows = of_params(load(root / "params.yaml"), root, draw).run()
    folder = root / "reports" / evening.SCALE / f"{evening.MAP}_{draw}"
    paths.write_text(folder / ROWS, rows.to_csv(index=False, float_format="%.5g"))
    note(folder, commit, started)

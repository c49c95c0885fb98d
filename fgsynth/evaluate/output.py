"""What a notebook leaves behind."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from fgsynth.evaluate import tables
from fgsynth.utils.paths import atomic, root, write_text


@dataclass(frozen=True)
class Output:
    """What a stage leaves behind, by kind: figures (PNG + CSV), tidy results, metrics, run files.

    `reports` and `runs` are relative to the root and hold a folder per stage; the pipeline injects staging
    folders here and publishes them, by scale, when the notebook has ended well.
    """

    stage: str
    scale: str
    reports: str
    runs: str

    @property
    def folder(self) -> Path:
        """The stage's own among the reports."""
        return root() / self.reports / self.stage

    def figure(self, name: str, figure: Figure, data: pd.DataFrame, caption: str) -> None:
        """Store a figure as PNG, which carries its caption, with the numbers behind it as CSV."""
        with atomic(self.folder / "figures" / f"{name}.png") as partial:
            figure.savefig(
                partial, dpi=120, bbox_inches="tight", metadata={"Description": caption, "Software": None}
            )
        self.table(name, data)

    def table(self, name: str, data: pd.DataFrame) -> None:
        """Store a table as CSV among the figures, six significant digits."""
        write_text(self.folder / "figures" / f"{name}.csv", data.to_csv(index=False, float_format="%.6g"))

    def results(self, rows: pd.DataFrame) -> None:
        """Store tidy results, checked; `scale` is filled in."""
        write_text(self.folder / "results.csv", tables.to_csv(rows.assign(scale=self.scale)))

    def comparisons(self, rows: pd.DataFrame) -> None:
        """Store differences of methods with their intervals, checked; `scale` is filled in."""
        write_text(self.folder / "comparisons.csv", tables.comparisons_to_csv(rows.assign(scale=self.scale)))

    def metrics(self, values: Mapping[str, float]) -> None:
        """Store headline numbers for `dvc metrics show`."""
        # JSON has no NaN.
        rounded = {name: float(f"{value:.6g}") if isfinite(value) else None for name, value in values.items()}
        write_text(self.folder.with_suffix(".json"), json.dumps(rounded, indent=2))

    def run_file(self, name: str) -> Path:
        """A path for a run file (weights, samples); its folder exists."""
        path = root() / self.runs / self.stage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

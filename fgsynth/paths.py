"""Where things are, and how they get there whole: root, atomic writes, the output of a stage."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from fgsynth import results
from fgsynth.errors import UserError


def root(start: Path | None = None) -> Path:
    """The project's root: the nearest folder upward that holds dvc.yaml.

    A notebook may be run from the root (papermill) or from its own folder (JupyterLab, nbval).
    Raises UserError outside a checkout.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise UserError(f"No dvc.yaml in {here} or above: run this inside a checkout of the project.")


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved onto it when the block ends well, removed when it does not.

    Raises UserError when the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise UserError(
            f"Cannot write into {path.parent} ({error.strerror}): make the folder writable."
        ) from error
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8, newline at the end."""
    with atomic(path) as partial:
        partial.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Output:
    """What a stage leaves behind, by kind: figures (PNG + CSV), tidy results, metrics, run files.

    `reports` and `runs` are relative to the root; the pipeline injects staging folders here and
    publishes them when the notebook has ended well.
    """

    stage: str
    scale: str
    reports: str
    runs: str

    def figure(self, name: str, figure: Figure, data: pd.DataFrame, caption: str) -> None:
        """Store a figure as PNG, which carries its caption, with the numbers behind it as CSV."""
        folder = root() / self.reports / "figures" / self.stage
        with atomic(folder / f"{name}.png") as partial:
            figure.savefig(
                partial, dpi=120, bbox_inches="tight", metadata={"Description": caption, "Software": None}
            )
        self.table(name, data)

    def table(self, name: str, data: pd.DataFrame) -> None:
        """Store a table as CSV among the figures, six significant digits."""
        path = root() / self.reports / "figures" / self.stage / f"{name}.csv"
        write_text(path, data.to_csv(index=False, float_format="%.6g"))

    def results(self, rows: pd.DataFrame) -> None:
        """Store tidy results, checked; `scale` is filled in."""
        path = root() / self.reports / "results" / f"{self.stage}.csv"
        write_text(path, results.to_csv(rows.assign(scale=self.scale)))

    def metrics(self, values: Mapping[str, float]) -> None:
        """Store headline numbers for `dvc metrics show`."""
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        write_text(root() / self.reports / "metrics" / f"{self.stage}.json", json.dumps(rounded, indent=2))

    def run_file(self, name: str) -> Path:
        """A path for a run file (weights, samples); its folder exists."""
        path = root() / self.runs / self.stage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

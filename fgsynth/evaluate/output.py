"""What a notebook leaves behind."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from fgsynth.evaluate import tables
from fgsynth.utils.paths import atomic, root, write_text

VECTOR = 150_000
"""Bytes that an SVG may have; one of more marks is smaller as PNG."""


@dataclass(frozen=True)
class Output:
    """What a stage leaves behind, by kind: figures (image + CSV), tidy results, metrics, run files.

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

    def figure(self, name: str, figure: Figure, data: pd.DataFrame, caption: str, alt: str) -> None:
        """Show a figure and store it, with the numbers behind it as CSV: as SVG of few marks, else as PNG.

        caption: what it says, and the claims it serves (C1); alt: what is drawn, for who does not see it.
        """
        shown, text = _rendered(figure, "png", caption), _vector(figure, name, caption)
        plt.close(figure)
        image = self.folder / "figures" / f"{name}.{'svg' if text else 'png'}"
        with atomic(image) as partial:
            partial.write_bytes(text or shown)
        self.table(name, data)
        told = {"alt": alt, "caption": caption, "figure": name}
        display({"image/png": shown, "text/plain": caption}, metadata={"image/png": told}, raw=True)

    def sprites(self, name: str, images: NDArray[np.uint8], data: pd.DataFrame) -> None:
        """Store a grid of images (rows, columns, h, w, 3) as one PNG, pixel by pixel, and a CSV of them."""
        rows, columns, h, w, _ = images.shape
        sheet = images.transpose(0, 2, 1, 3, 4).reshape(rows * h, columns * w, 3)
        with atomic(self.folder / "figures" / f"{name}.png") as partial:
            Image.fromarray(sheet).save(partial, optimize=True)
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


def _rendered(figure: Figure, kind: str, caption: str) -> bytes:
    """The figure as a file; nothing of when and by what it was made."""
    absent = {"png": ["Software"], "svg": ["Date", "Creator"]}[kind]
    buffer = io.BytesIO()
    metadata = {"Description": caption, **dict.fromkeys(absent)}
    figure.savefig(buffer, format=kind, dpi=110, bbox_inches="tight", metadata=metadata)
    return buffer.getvalue()


def _vector(figure: Figure, name: str, caption: str) -> bytes | None:
    """The figure as SVG; None for one that shows images or has many marks."""
    if any(ax.images for ax in figure.axes):
        return None
    # Salted by its name, as ids are drawn at random otherwise.
    with plt.rc_context({"svg.hashsalt": name}):
        text = _rendered(figure, "svg", caption)
    return text if len(text) <= VECTOR else None

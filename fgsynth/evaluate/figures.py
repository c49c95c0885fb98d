"""One look for every figure, and a slider that becomes an image where nothing can slide."""

import io
from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

from fgsynth.evaluate.metrics import interval

COLOURS = {
    "unguided": "#7a8691",
    "entropy": "#0b62a4",
    "loss": "#c2571a",
    "hardness": "#6a3d9a",
    "class 0": "#3b7dd8",
    "class 1": "#e08214",
}
"""One colour per criterion and class in every figure."""
STRATA = {"overall": "#222222", "many": "#0b62a4", "medium": "#6a3d9a", "few": "#c2571a"}
"""One colour per stratum."""


def use_style() -> None:
    """The house style for all following figures, which `Output.figure` shows, and the kernel does not."""
    # The kernel's backend, which is loaded at its first use, would turn it on again.
    plt.switch_backend(plt.rcParams["backend"])
    plt.ioff()
    sns.set_theme(style="ticks", context="notebook", font_scale=0.85)
    plt.rcParams.update(
        {"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 96, "legend.frameon": False}
    )


def band(values: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of the mean, for seaborn's `errorbar`: the same as in the tables."""
    over_seeds = interval(values)
    return over_seeds.low, over_seeds.high


def percent(values: NDArray[np.float64]) -> tuple[float, float]:
    """The same of percentages, which lie between 0 and 100."""
    low, high = band(values)
    return max(low, 0.0), min(high, 100.0)


def plane(axes: Axes, x: Tensor, y: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> None:
    """Points of the plane (n, 2) by class (n,), with the boundary of a linear classifier if given.

    weight (2, 2) and bias (2,): one row per class; the boundary is where the two logits are equal.
    """
    for c in (0, 1):
        mine = x[y == c]
        axes.scatter(
            mine[:, 0], mine[:, 1], s=4, alpha=0.5, lw=0, color=COLOURS[f"class {c}"], label=f"class {c}"
        )
    axes.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal", xticks=[-2, 0, 2], yticks=[-2, 0, 2])
    axes.set(xlabel="$x_1$", ylabel="$x_2$")
    if weight is not None and bias is not None:
        w, b = weight[1] - weight[0], bias[1] - bias[0]
        foot = -b * w / w.square().sum()
        along = foot + w.flip(0) * w.new_tensor([-1.0, 1.0])
        axes.axline(tuple(foot.tolist()), tuple(along.tolist()), color="black", lw=1.2)


def curves(
    axes: Axes,
    data: pd.DataFrame,
    x: str,
    y: str,
    hue: str,
    ylabel: str,
    palette: Mapping[str, str] = COLOURS,
) -> None:
    """Mean over seeds with its 95 % band; the legend is `legend`. A label with (%) is of percentages."""
    errorbar = percent if "(%)" in ylabel else band
    sns.lineplot(
        data, x=x, y=y, hue=hue, palette=palette, errorbar=errorbar, marker="o", legend=False, ax=axes
    )
    axes.set_ylabel(ylabel)


def legend(figure: Figure, colours: Mapping[str, str]) -> None:
    """One legend of lines by colour, beside all panels, where it covers nothing."""
    handles = [Line2D([], [], color=colour, marker="o", ms=4) for colour in colours.values()]
    figure.legend(handles, list(colours), loc="outside right upper")


def over_seeds(wide: pd.DataFrame, columns: Sequence[str], by: str) -> pd.DataFrame:
    """Mean and 95 % half-width over seeds, as text; empty where a value is missing.

    Of two seeds the mean alone: Student's half-width is 6 times their distance, which says nothing of them.
    """

    def text(values: pd.Series) -> str:
        if values.isna().any():
            return ""
        found = interval(values.to_numpy(float))
        return str(found) if found.n > 2 else f"{found.mean:.2f} (n = {found.n})"

    return wide.groupby(by, sort=False)[list(columns)].agg(text)


def strata_curves(wide: pd.DataFrame, x: str, xlabel: str) -> Figure:
    """Overall, many, medium and few against x, mean over seeds with 95 % bands."""
    figure, ax = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
    long = wide.melt([x, "seed"], list(STRATA), "stratum", "accuracy")
    curves(ax, long, x, "accuracy", "stratum", "accuracy (%)", STRATA)
    ax.set_xlabel(xlabel)
    legend(figure, STRATA)
    return figure


def gains(table: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Differences with intervals, one line per point of a map, one panel per metric."""
    base = table["factor"] == table["value"]
    table = table.set_index(table["factor"].where(base, table["factor"] + ": " + table["value"]))
    panels = {f"{metric} (points)": table[table["metric"] == metric] for metric in metrics}
    return forest(panels, list(dict.fromkeys(table.index)))


def predicted(table: pd.DataFrame) -> Figure:
    """Measured gains with their intervals against predicted ones; columns predicted, mean, low, high."""
    figure, ax = plt.subplots(figsize=(4.2, 3.6), layout="constrained")
    width = [table["mean"] - table["low"], table["high"] - table["mean"]]
    ax.errorbar(table["predicted"], table["mean"], yerr=width, fmt="o", ms=4, lw=1, color=COLOURS["entropy"])
    ax.axvline(0, color="grey", lw=1)
    ax.axhline(0, color="grey", lw=1)
    ax.set(xlabel="predicted gain (points)", ylabel="measured gain (points)")
    return figure


def forest(panels: Mapping[str, pd.DataFrame], lines: Sequence[str]) -> Figure:
    """Forest plot: means with their intervals, a panel per table by its label, the same lines in each.

    panels: columns mean, low, high, indexed by line; a line without numbers keeps its place.
    """
    size = (3 * len(panels) + 2, 0.27 * len(lines) + 0.9)
    figure, axes = plt.subplots(
        1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (label, panel) in zip(axes[0], panels.items(), strict=True):
        mine = panel.reindex(list(lines))
        width = [mine["mean"] - mine["low"], mine["high"] - mine["mean"]]
        ax.errorbar(
            mine["mean"], range(len(lines)), xerr=width, fmt="o", ms=4, lw=1, color=COLOURS["entropy"]
        )
        ax.axvline(0, color="grey", lw=1)
        ax.set(xlabel=label, yticks=range(len(lines)), yticklabels=lines)
        ax.locator_params(axis="x", nbins=5)  # of neighbours the outermost would touch
    axes[0, 0].set_ylim(len(lines) - 0.5, -0.5)
    return figure


def images(rows: Mapping[str, NDArray[np.uint8]], titles: Sequence[str] = (), side: float = 0.72) -> Figure:
    """Rows of images (n, h, w, 3), each row with its name; titles over the columns, at most n."""
    columns = max(map(len, rows.values()))
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(side * columns + 1.6, side * len(rows) + 0.3), squeeze=False,
        gridspec_kw={"wspace": 0.04, "hspace": 0.04},
    )  # fmt: skip
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for line, (name, shown) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        for ax, image in zip(line, shown, strict=False):
            ax.imshow(image, interpolation="nearest")
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(title, fontsize=8)
    return figure


def slider(draw: Callable[[float], Figure], values: Sequence[float], label: str, alt: str) -> None:
    """A slider over images drawn beforehand; a strip of the same images, with alt text, where it cannot work.

    One output carries both: JupyterLab shows the widget, everything else (papermill's stored
    copy, HTML, GitHub) the strip. Slider and images are linked in the browser, so that it answers
    while the kernel is busy with the cells below.
    """
    images = [_png(draw(value)) for value in values]
    control = ipywidgets.SelectionSlider(options=list(values), description=label)
    narrow = ipywidgets.Layout(width="26rem")
    frames = [ipywidgets.Image(value=image, format="png", layout=narrow) for image in images]
    stack = ipywidgets.Stack(frames, selected_index=0)
    ipywidgets.jslink((control, "index"), (stack, "selected_index"))
    bundle = dict(ipywidgets.VBox([control, stack])._repr_mimebundle_()) | {
        "image/png": _strip(images),
        "text/plain": f"slider: {label}",
    }
    display(bundle, metadata={"image/png": {"alt": alt}}, raw=True)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=96, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def _strip(images: Sequence[bytes]) -> bytes:
    """The images side by side, at most four in a row, as one PNG."""
    columns = min(4, len(images))
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.9 * columns, 3.1 * rows), squeeze=False)
    figure.subplots_adjust(0, 0, 1, 1, 0, 0)  # so that letters stay as large as they can
    for ax in axes.flat:
        ax.axis("off")
    for ax, image in zip(axes.flat, images, strict=False):
        ax.imshow(plt.imread(io.BytesIO(image)))
    return _png(figure)

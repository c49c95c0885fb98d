"""Figures and the summary table of the methods beyond the papers."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from fgsynth.evaluate.figures import forest, legend

METRIC = {"imagenet_lt": "few", "nicopp": "worst_group_accuracy"}
"""What each benchmark is about."""
NAMED = {"imagenet_lt": "Few", "nicopp": "worst group"}


def differences(compared: pd.DataFrame, names: Sequence[str], costs: pd.Series | None = None) -> Figure:
    """Points gained over the printed method, with 95 % intervals, one panel per benchmark that was run.

    costs: by method, told beside the names.
    """
    panels = {
        f"{NAMED[name]}, points": compared[
            (compared["benchmark"] == name) & (compared["metric"] == metric)
        ].set_index("method")
        for name, metric in METRIC.items()
        if name in set(compared["benchmark"])
    }
    figure = forest(panels, names)
    if costs is not None:
        figure.axes[0].set_yticklabels([f"{name}: {costs[name]:.2f}" for name in names])
    return figure


def loops(table: pd.DataFrame, reference: Mapping[str, float]) -> Figure:
    """Accuracy against the number of cycles, a point per seed; the line is one-shot feedback.

    table: benchmark, kind, cycles, value; reference: the mean of the printed method, by benchmark.
    """
    figure, axes = plt.subplots(1, len(METRIC), figsize=(9, 3.2), layout="constrained")
    kinds = list(dict.fromkeys(table["kind"]))
    colours = dict(zip(kinds, sns.color_palette("colorblind", len(kinds)).as_hex(), strict=True))
    for ax, name in zip(axes, METRIC, strict=True):
        mine = table[table["benchmark"] == name]
        sns.stripplot(mine, x="cycles", y="value", hue="kind", palette=colours, dodge=len(kinds) > 1,
                      jitter=False, size=5, legend=False, ax=ax)  # fmt: skip
        ax.axhline(reference[name], color="grey", lw=1)
        ax.set(ylabel=f"{NAMED[name]} (%)", xlabel="parts of the set that were made")
    legend(figure, colours)
    return figure


def allocation(table: pd.DataFrame) -> Figure:
    """Images given by expected gain against those that fill up, a panel per benchmark, coloured by error.

    table: benchmark, filled, given, error (%), one row per class or group.
    """
    names = list(dict.fromkeys(table["benchmark"]))
    figure, axes = plt.subplots(
        1, len(names), figsize=(4.5 * len(names) + 0.8, 3.2), squeeze=False, layout="constrained"
    )
    for ax, name in zip(axes[0], names, strict=True):
        mine = table[table["benchmark"] == name]
        points = ax.scatter(mine["filled"], mine["given"], c=mine["error"], cmap="viridis", s=30)
        most = max(mine["filled"].max(), mine["given"].max())
        ax.plot([0, most], [0, most], color="grey", lw=1, ls=":")
        ax.set(title=name, xlabel="images that fill up", ylabel="images by expected gain")
        figure.colorbar(points, ax=ax, label="error on val (%)")
    return figure


def summary(
    wide: Mapping[str, pd.DataFrame], compared: pd.DataFrame, costs: pd.DataFrame, reference: str
) -> pd.DataFrame:
    """One row per method: for each benchmark accuracy, difference to the reference as text, and cost.

    wide: `study.table` by benchmark; costs: benchmark, method, cost.
    """
    columns = {}
    for name, metric in METRIC.items():
        named = NAMED[name]
        mean = wide[name].groupby("method", sort=False)[metric].mean()
        rows = compared[(compared["benchmark"] == name) & (compared["metric"] == metric)]
        rows = rows[rows["reference"] == reference].set_index("method")
        text = rows.apply(lambda r: f"{r['mean']:+.1f} [{r['low']:.1f}, {r['high']:.1f}]", axis=1)
        cost = costs[costs["benchmark"] == name].set_index("method")["cost"]
        columns[named] = mean.round(1)
        columns[f"{named}, over FG"] = text
        columns[f"{named}, cost"] = cost.round(2)
    return pd.DataFrame(columns).sort_values(NAMED["imagenet_lt"], ascending=False)

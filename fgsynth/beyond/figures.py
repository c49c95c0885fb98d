"""Figures and the summary table of the methods beyond the papers."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from fgsynth.config.names import FG_ENTROPY, UNGUIDED
from fgsynth.evaluate.figures import COLOURS, band, forest

METRIC = {"imagenet_lt": "few", "nicopp": "worst_group_accuracy"}
"""What each benchmark is about."""
NAMED = {"imagenet_lt": "Few", "nicopp": "worst group"}


def differences(compared: pd.DataFrame, names: Sequence[str], title: str) -> Figure:
    """Points gained over the printed method, with 95 % intervals, one panel per benchmark that was run."""
    panels = {
        f"{NAMED[name]}, points over {FG_ENTROPY}": compared[
            (compared["benchmark"] == name) & (compared["metric"] == metric)
        ].set_index("method")
        for name, metric in METRIC.items()
        if name in set(compared["benchmark"])
    }
    figure = forest(panels, names)
    figure.suptitle(title)
    return figure


def frontier(table: pd.DataFrame, ylabel: str) -> Figure:
    """Accuracy against cost, a point per method with the 95 % interval of its seeds; the dashed line is 1.1.

    table: method, seed, cost, value.
    """
    figure, ax = plt.subplots(figsize=(8, 4.6), layout="constrained")
    points = table.groupby("method", sort=False).agg(cost=("cost", "first"), mean=("value", "mean"))
    gap, last = 0.07 * (np.ptp(points["mean"]) or 1.0), -np.inf
    for name, (cost, mean) in points.sort_values("mean").iterrows():
        low, high = band(table.loc[table["method"] == name, "value"].to_numpy(float))
        colour = COLOURS["unguided" if str(name).startswith(UNGUIDED) else "entropy"]
        ax.errorbar(cost, mean, yerr=[[mean - low], [high - mean]], fmt="o", ms=5, lw=0.7, color=colour)
        # Names in a column of their own rising with the points, as these lie close together.
        last = max(mean, last + gap)
        ax.annotate(
            str(name), (cost, mean), (1.02, last), textcoords=ax.get_yaxis_transform(), fontsize=8,
            va="center", arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "grey"},
        )  # fmt: skip
    ax.axvline(1.1, color="grey", lw=1, ls="--")
    ax.set(xlabel="cost of the set, times unguided sampling of as many images to fill", ylabel=ylabel)
    return figure


def loops(table: pd.DataFrame, reference: Mapping[str, float]) -> Figure:
    """Accuracy against the number of cycles, a point per seed; the line is one-shot feedback.

    table: benchmark, kind, cycles, value; reference: the mean of the printed method, by benchmark.
    """
    figure, axes = plt.subplots(1, len(METRIC), figsize=(9, 3.2), layout="constrained")
    for ax, name in zip(axes, METRIC, strict=True):
        mine = table[table["benchmark"] == name]
        dodge = mine["kind"].nunique() > 1
        sns.stripplot(mine, x="cycles", y="value", hue="kind", dodge=dodge, jitter=False, size=5, ax=ax)
        ax.axhline(reference[name], color="grey", lw=1)
        ax.set(ylabel=f"{NAMED[name]} (%)", xlabel="parts of the set that were made")
        ax.legend(title=None, fontsize=7)
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

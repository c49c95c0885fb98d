"""Figures and the last table of what neither paper did."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from fgsynth.evaluate.figures import COLOURS, band

METRIC = {"imagenet_lt": "few", "nicopp": "worst_group_accuracy"}
"""What each benchmark is about."""
SAID = {"imagenet_lt": "Few", "nicopp": "worst group"}


def differences(compared: pd.DataFrame, names: Sequence[str], title: str) -> Figure:
    """Points gained over the printed method, with 95 % intervals, one panel per benchmark that was run."""
    there = [name for name in METRIC if name in set(compared["benchmark"])]
    figure, axes = plt.subplots(
        1, len(there), figsize=(9, 0.3 * len(names) + 1), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, name in zip(axes[0], there, strict=True):
        mine = compared[(compared["benchmark"] == name) & (compared["metric"] == METRIC[name])]
        mine = mine.set_index("method").reindex(list(names))
        width = [mine["mean"] - mine["low"], mine["high"] - mine["mean"]]
        ax.errorbar(
            mine["mean"], range(len(names)), xerr=width, fmt="o", ms=4, lw=1, color=COLOURS["entropy"]
        )
        ax.axvline(0, color="grey", lw=1)
        ax.set(xlabel=f"{SAID[name]}, points over FG entropy", yticks=range(len(names)), yticklabels=names)
    axes[0, 0].invert_yaxis()
    figure.suptitle(title)
    return figure


def frontier(table: pd.DataFrame, ylabel: str) -> Figure:
    """Accuracy against cost, a point per way with the 95 % interval of its seeds; the dashed line is 1.1.

    table: method, seed, cost, value.
    """
    figure, ax = plt.subplots(figsize=(8, 4.6), layout="constrained")
    points = table.groupby("method", sort=False).agg(cost=("cost", "first"), mean=("value", "mean"))
    gap, last = 0.07 * (np.ptp(points["mean"]) or 1.0), -np.inf
    for name, (cost, mean) in points.sort_values("mean").iterrows():
        low, high = band(table.loc[table["method"] == name, "value"].to_numpy(float))
        colour = COLOURS["unguided" if "unguided" in str(name) else "entropy"]
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
        ax.set(ylabel=f"{SAID[name]} (%)", xlabel="parts of the set that were made")
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
        said = SAID[name]
        mean = wide[name].groupby("method", sort=False)[metric].mean()
        rows = compared[(compared["benchmark"] == name) & (compared["metric"] == metric)]
        rows = rows[rows["reference"] == reference].set_index("method")
        text = rows.apply(lambda r: f"{r['mean']:+.1f} [{r['low']:.1f}, {r['high']:.1f}]", axis=1)
        cost = costs[costs["benchmark"] == name].set_index("method")["cost"]
        columns[said] = mean.round(1)
        columns[f"{said}, over FG"] = text
        columns[f"{said}, cost"] = cost.round(2)
    return pd.DataFrame(columns).sort_values(SAID["imagenet_lt"], ascending=False)

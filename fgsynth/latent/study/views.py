"""Figures of feature space: the plane of three classes, gains, curves."""

from dataclasses import dataclass

import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from torch import Tensor

from fgsynth.evaluate.figures import COLOURS, band, curves, legend
from fgsynth.latent.probe.linear import Probe, fit_probe
from fgsynth.latent.study.comparison import METHODS, Draw

KINDS = ("real", "rest of the balanced set", "synthetic")
METRIC_NAMES = ("overall", "few")


@dataclass(frozen=True)
class Plane:
    """Points of three classes in two principal components, and probes fitted there by their training set."""

    points: pd.DataFrame
    probes: dict[str, Probe]


def plane(draw: Draw, method: str) -> Plane:
    """Project the largest class and the two classes of fewest features whose means lie nearest.

    Principal components of the three classes' balanced set, by an exact decomposition whose signs are fixed:
    the same plane in every run. Probes: cross entropy on real features, on real and synthetic ones, and on
    the balanced set, in the plane.
    """
    x, y = draw.data.part("train")
    full, full_label = draw.data.part("train", "rest")
    classes = _three(draw)
    mine = torch.isin(full_label, torch.tensor(classes))
    axes = PCA(2, svd_solver="full").fit(full[mine].numpy())
    wanted = torch.zeros_like(draw.counts)
    wanted[classes] = 60
    new, new_label = METHODS[method](draw).sample_all(wanted, draw.seed)
    rest, rest_label = draw.data.part("rest")
    parts = dict(zip(KINDS, ((x, y), (rest, rest_label), (new, new_label)), strict=True))
    points = pd.concat(
        [_points(e, label, classes, draw, axes).assign(kind=k) for k, (e, label) in parts.items()]
    )
    kinds = {"real": ["real"], "real and synthetic": ["real", "synthetic"], "balanced": [*KINDS[:2]]}
    probes = {name: _fitted(points[points["kind"].isin(kind)], draw, classes) for name, kind in kinds.items()}
    return Plane(points, probes)


def _three(draw: Draw) -> list[int]:
    counts = draw.counts
    x, y = draw.data.part("train")
    means = torch.stack([x[y == c].mean(0) for c in range(len(counts))])
    head = int(counts.argmax())
    rare = counts.argsort()[: max(2, len(counts) // 3)]
    near = rare[(means[rare] - means[head]).norm(dim=1).argsort()][:2]
    return [head, *near.tolist()]


def _points(e: Tensor, label: Tensor, classes: list[int], draw: Draw, axes: PCA) -> pd.DataFrame:
    rows = torch.isin(label, torch.tensor(classes))
    at = axes.transform(e[rows].numpy())
    names = [draw.data.classes[c] for c in label[rows].tolist()]
    return pd.DataFrame({"component 1": at[:, 0], "component 2": at[:, 1], "class": names})


def _fitted(points: pd.DataFrame, draw: Draw, classes: list[int]) -> Probe:
    names = [draw.data.classes[c] for c in classes]
    at = torch.tensor(points[["component 1", "component 2"]].to_numpy(), dtype=torch.float32)
    label = torch.tensor(points["class"].map(names.index).to_numpy())
    return fit_probe(at, label, 3, weight_decay=1e-3)


def draw_plane(shown: Plane) -> Figure:
    """Draw three panels, one kind of points each; the boundaries of every probe in all of them."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharex=True, sharey=True, layout="constrained")
    names = list(dict.fromkeys(shown.points["class"]))
    spans = [shown.points[c].quantile([0.005, 0.995]).tolist() for c in ("component 1", "component 2")]
    grid = torch.cartesian_prod(*(torch.linspace(low, high, 200) for low, high in spans))
    for ax, kind in zip(axes, KINDS, strict=True):
        mine = shown.points[shown.points["kind"] == kind]
        sns.scatterplot(mine, x="component 1", y="component 2", hue="class", hue_order=names, s=14, ax=ax,
                        palette="colorblind", legend=kind == KINDS[0])  # fmt: skip
        for (_, probe), style in zip(shown.probes.items(), (":", "-", "--"), strict=True):
            z = probe.predict(grid).reshape(200, 200).T
            at = grid.reshape(200, 200, 2)
            for c in range(3):
                ax.contour(at[:, 0, 0], at[0, :, 1], (z == c).float(), [0.5], colors="0.2", linestyles=style,
                           linewidths=1)  # fmt: skip
        ax.set(title=kind, xlim=spans[0], ylim=spans[1])
    # Beside the panels: within one it would lie over points.
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].get_legend().remove()
    figure.legend(handles, labels, loc="outside right upper")
    styles = ("dotted", "solid", "dashed")
    legend = ", ".join(f"{s}: {n}" for n, s in zip(shown.probes, styles, strict=True))
    figure.supxlabel(f"boundaries of a probe on {legend}", fontsize=9)
    return figure


def draw_gains(gains: pd.DataFrame, bound: str) -> Figure:
    """Draw a column per benchmark, a row per metric: gains over the reference, the bound as a dashed line."""
    sets = list(dict.fromkeys(gains["set"]))
    methods = [m for m in dict.fromkeys(gains["method"]) if m != bound]
    figure, axes = plt.subplots(
        len(METRIC_NAMES), len(sets), figsize=(3.4 * len(sets) + 1.5, 0.42 * len(methods) + 1.6),
        sharey=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    for column, name in enumerate(sets):
        for ax, metric in zip(axes[:, column], METRIC_NAMES, strict=True):
            mine = gains[(gains["set"] == name) & (gains["metric"] == metric)]
            ax.axvline(0, color="0.6", linewidth=1)
            top = mine[mine["method"] == bound]["gain"].mean()
            if top == top:  # not every benchmark has a full set
                ax.axvline(top, color="0.3", linestyle="--", linewidth=1)
            sns.pointplot(mine[mine["method"] != bound], x="gain", y="method", order=methods, errorbar=band,
                          linestyle="none", color=COLOURS["entropy"], ax=ax, markersize=4)  # fmt: skip
            ax.set(
                title=name if metric == METRIC_NAMES[0] else None,
                xlabel=f"points gained, {metric}",
                ylabel=None,
            )
    return figure


def draw_conditions(by_shots: pd.DataFrame, by_quality: pd.DataFrame) -> Figure:
    """Draw the gain over the best reference against shots, a line per set, and against the extractor.

    by_shots: set, shots, seed, gain. by_quality: set, seed, gain, full: accuracy of the balanced set (%).
    """
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), sharey=True, layout="constrained")
    sns.lineplot(by_shots, x="shots", y="gain", hue="set", errorbar=band, marker="o", palette="colorblind",
                 ax=axes[0])  # fmt: skip
    sns.pointplot(by_quality, x="full", y="gain", hue="set", errorbar=band, native_scale=True,
                  palette="colorblind", legend=False, ax=axes[1])  # fmt: skip
    shots = sorted(by_shots["shots"].unique())
    axes[0].set_xscale("log")
    axes[0].set_xticks(shots, [str(n) for n in shots])
    axes[0].minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    axes[0].get_legend().remove()
    axes[0].set(xlabel="real shots", ylabel="points over the best reference")
    axes[1].set(xlabel="accuracy on the full balanced set (%)")
    for ax in axes:
        ax.axhline(0, color="0.6", linewidth=1)
    return figure


def draw_curves(by_amount: pd.DataFrame, by_shots: pd.DataFrame) -> Figure:
    """Draw a column per benchmark: accuracy against synthetic features, and against real shots."""
    sets = list(dict.fromkeys(by_amount["set"]))
    figure, axes = plt.subplots(
        2, len(sets), figsize=(3.4 * len(sets) + 2.4, 6), squeeze=False, layout="constrained"
    )
    methods = list(dict.fromkeys([*by_amount["method"], *by_shots["method"]]))
    colours = dict(zip(methods, sns.color_palette("colorblind", len(methods)).as_hex(), strict=True))
    for column, name in enumerate(sets):
        for ax, data, x in zip(axes[:, column], (by_amount, by_shots), ("amount", "shots"), strict=True):
            curves(ax, data[data["set"] == name], x, "overall", "method", "overall accuracy (%)", colours)
            ax.set(title=name if x == "amount" else None)
            ax.set_xlabel("synthetic features, times the missing ones" if x == "amount" else "real shots")
        shots = sorted(by_shots["shots"].unique())
        axes[1, column].set_xscale("log")
        axes[1, column].set_xticks(shots, [str(n) for n in shots])
        axes[1, column].minorticks_off()
    legend(figure, colours)
    return figure

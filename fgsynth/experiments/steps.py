"""Steps that the notebooks of the papers' tables share: load, look at synthetic sets, collect numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fgsynth.data.benchmark import DIGESTS, strata, verify
from fgsynth.evaluate import figures
from fgsynth.evaluate.scores import STRATA
from fgsynth.experiments import study
from fgsynth.experiments.build import of_world
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.utils.paths import root

NAMED = 60
"""Classes whose names fit below a figure."""


def load(
    name: str,
    scale: str,
    world: Mapping[str, Any],
    sampling: Mapping[str, Any],
    training: Mapping[str, Any],
    work: str,
    draw: int = 0,
) -> Experiment:
    """Load an experiment whose manifest has the digest that was written down for the scale.

    draw: of the mini world, or of the split of NICO++, and of the synthetic sets; the official split of a
    long-tailed set is one. Digests are of draw 0. Raises UserError as `build.of_world`, `benchmark.verify`.
    """
    if "seed" in world:
        world = {**world, "seed": world["seed"] + draw}
    exp = of_world(name, world, sampling, training, work, draw)
    if draw == 0:
        verify(exp.bench.manifest, root() / DIGESTS, scale)
    return exp


def seeds(draw: int, each: int) -> range:
    """The seeds of a draw's classifiers, which no other draw has."""
    return range(draw * each, (draw + 1) * each)


def described(exp: Experiment) -> str:
    """Return the title, digest and size of a benchmark, its classes by stratum or its empty groups."""
    m, counts = exp.bench.manifest, exp.bench.manifest.fill_counts().numpy()
    parts, unit = ", ".join(f"{(strata(counts) == name).sum()} {name}" for name in STRATA), "class"
    if len(m.contexts) > 1:
        parts, unit = f"{(counts == 0).sum()} of {len(counts)} empty", "group"
    return (
        f"{exp.bench.title}, digest {m.digest[:12]}: {counts.sum()} training images, "
        f"{counts.min()} to {counts.max()} per {unit} ({parts})"
    )


def long_tail(exp: Experiment) -> tuple[Figure, pd.DataFrame]:
    """Draw the training images per class, the largest first, coloured by stratum; return its numbers too."""
    counts = exp.bench.manifest.counts()
    order = counts.argsort(descending=True)
    names = [exp.bench.manifest.classes[y] for y in order.tolist()]
    bars = pd.DataFrame({"class": names, "images": counts[order].numpy(), "stratum": strata(counts[order])})
    size = (min(10, 4 + len(bars) / 4), 2.4)
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    sns.barplot(bars, x="class", y="images", hue="stratum", palette=figures.STRATA, dodge=False, ax=ax)
    ax.tick_params(axis="x", rotation=60, labelbottom=len(bars) <= NAMED)
    ax.set(xlabel=None, ylabel="training images")
    return figure, bars


def some_keys(made: SyntheticSet, groups: NDArray[np.bool_], n: int = 12) -> list[str]:
    """Return the keys of at most n images, spread evenly over some groups; groups: chosen or not, (g,)."""
    mine = made.index["key"][groups[made.index["group"]]]
    return mine.iloc[:: max(1, len(mine) // n)].head(n).tolist()


def sample_sheet(sets: Mapping[str, SyntheticSet], keys: Sequence[str]) -> tuple[Figure, pd.DataFrame]:
    """Draw the images of some keys, one row per synthetic set; return the rows of their indices too."""
    shown, rows = {}, []
    for name, made in sets.items():
        place = pd.Index(made.index["key"]).get_indexer(pd.Index(keys))
        shown[name] = made.at(place).numpy()
        rows.append(made.index.iloc[place].assign(method=name))
    titles = rows[0]["prompt"].str.replace(" in ", "\nin ")
    columns = ["method", "key", "prompt", "condition", "seed", "before", "after"]
    return figures.images(shown, titles), pd.concat(rows)[columns]


def contents(exp: Experiment, sets: Mapping[str, SyntheticSet]) -> pd.DataFrame:
    """Return what the judge of the mini world counts in synthetic sets, a row each; no columns elsewhere."""
    return pd.DataFrame({name: study.contents_of(exp, made) for name, made in sets.items()}).T


def along(x: str, scored: Mapping[float, study.Scored]) -> pd.DataFrame:
    """Return the table of methods that differ in one number, in rising order, with the number as column x."""
    return pd.concat([study.table([s]).assign(**{x: value}) for value, s in sorted(scored.items())])


def headline(table: pd.DataFrame, methods: Sequence[str], metrics: Sequence[str]) -> dict[str, float]:
    """Return the means over seeds of some methods and metrics by "method, metric"."""
    means = table.groupby("method")[list(metrics)].mean()
    return {f"{name}, {metric}": float(means[metric][name]) for name in methods for metric in metrics}

"""Plans: which synthetic images to make, one row each, from the counts of a benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fgsynth.config.checked import Checked
from fgsynth.config.schema import Inversion, NotNegative, Share
from fgsynth.data.benchmark import Benchmark
from fgsynth.data.images import ImageLike
from fgsynth.generate.generator import Generator
from fgsynth.generate.textual_inversion import learn_words
from fgsynth.guidance.criteria import NAMES
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator, stable_seed


@dataclass(frozen=True)
class Method(Checked):
    """Method of making synthetic images: a row of the papers' tables.

    image: condition on a real image beside the prompt; dropout: share p of the units of its embedding that
    are dropped. criteria: names of those that guide, if any; of several each sample draws one (FG table 6);
    scale: the feedback scale w. inversion: replace the prompt's class name by a word learned from the class's
    images (Fill-Up). Raises UserError for a setting out of its range, and for one that has no effect beside
    the others.
    """

    image: bool = True
    dropout: Share = 0.0
    criteria: tuple[str, ...] = ()
    scale: NotNegative = 0.0
    inversion: Inversion | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := [name for name in self.criteria if name not in NAMES]:
            raise UserError(f"Unknown criterion '{unknown[0]}': choose from {', '.join(NAMES)}.")
        if self.dropout and not self.image:
            raise UserError("Method: dropout has no effect without an image condition: leave it out.")
        if self.scale and not self.criteria:
            raise UserError("Method: scale has no effect without criteria: name one.")


def missing_per_group(counts: torch.Tensor, target: int | None, whole: float = 1.0) -> NDArray[np.int64]:
    """Number of images to make of each class or group: max(target - n, 1) (FG step 4).

    counts: real images, as `Manifest.fill_counts`; target: None for as many as the largest has; whole: factor
    of the number, rounded, one image at least.
    """
    top = int(counts.max()) if target is None else target
    lacking = (top - counts).clamp(min=1).numpy()
    return np.maximum(1, np.rint(whole * lacking)).astype(np.int64)


def plan(bench: Benchmark, per_group: NDArray[np.int64], seed: int, image: bool = True) -> pd.DataFrame:
    """Table of the images to make: key, index, label, context, group, prompt, condition, seed.

    The seed of a row is a stable hash of (seed, benchmark, group, index): the methods of a comparison start
    from the same noise and condition. The condition is the key of a real training image of the class,
    whatever its context, as a group may have none (FG step 2); it is drawn by the row's own seed, with
    replacement; empty where `image` is False. Raises UserError for a class without a real image to condition
    on, where there is nothing to make, and for other than one number per group.
    """
    m = bench.manifest
    if len(per_group) != (groups := len(m.group_counts())):
        raise UserError(
            f"{m.name}: {len(per_group)} numbers of images, but {groups} groups: give one for each."
        )
    rows = []
    real = dict(list(m.rows("train").groupby("label")["key"])) if image else {}
    for group, n in enumerate(per_group):
        label, context = divmod(group, len(m.contexts))
        if image and n and label not in real:
            raise UserError(
                f"{m.name}: class '{m.classes[label]}' has no real image to condition on: "
                "sample it by text only."
            )
        for i in range(int(n)):
            own = stable_seed("synthetic", seed, m.name, group, i)
            condition = real[label].iloc[_draw(len(real[label]), own)] if image else ""
            key = f"{label:04d}-{context}-{i:05d}"
            rows.append((key, i, label, context, group, bench.prompt(label, context), condition, own))
    if not rows:
        raise UserError(f"{m.name}: nothing to synthesise, every class is full.")
    return pd.DataFrame(
        rows, columns=["key", "index", "label", "context", "group", "prompt", "condition", "seed"]
    )


def _draw(n: int, seed: int) -> int:
    return int(torch.randint(n, (), generator=generator("condition", seed)))


def with_learned_words(
    generator: Generator, bench: Benchmark, inversion: Inversion, seed: int, folder: Path
) -> Generator:
    """Generator whose class names are words learned from the classes' real images (Fill-Up).

    `folder` keeps the words. Raises UserError where prompts name contexts too, of which a class's word holds
    nothing, and as `textual_inversion.learn_words`.
    """
    m, train = bench.manifest, bench.manifest.rows("train")
    if len(m.contexts) > 1:
        raise UserError(
            f"{m.name}: its prompts name contexts, learned words classes only: leave inversion out."
        )

    def images(label: int) -> Sequence[ImageLike]:
        mine = train[train["label"] == label].head(inversion.most)
        return bench.shown(mine.reset_index(drop=True))

    return learn_words(generator, m.classes, images, inversion, seed, folder)


def share_of(index: pd.DataFrame, amount: float, whole: float) -> NDArray[np.bool_]:
    """Mask of the first rows of a plan of `whole` times the missing images that make `amount` times.

    A smaller set is a part of the larger, so that FG figure 12 compares nothing but the number.
    """
    per_group = index.groupby("group")["index"].transform("size")
    return (index["index"] < np.maximum(1, (per_group * amount / whole).round())).to_numpy()

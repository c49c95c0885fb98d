"""The mini world's benchmarks: draws with the shape of ImageNet-LT, Places-LT and NICO++."""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fgsynth.config.schema import Groups, LongTail
from fgsynth.data.benchmark import FEW_BELOW, MANY_ABOVE, Benchmark, Manifest
from fgsynth.miniworld.kinds import CLASSES
from fgsynth.miniworld.places import PLACES
from fgsynth.miniworld.render import render
from fgsynth.miniworld.scenery import CONTEXTS
from fgsynth.miniworld.world import BENCHMARK, Draw, sample
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import stable_seed

IMAGENET_LT, PLACES_LT, NICOPP = "imagenet_lt", "places_lt", "nicopp"


def tail_counts(tail: LongTail) -> NDArray[np.int64]:
    """Training images per class, largest first: geometric within each stratum, steepest in few."""
    many, medium, few = tail.strata
    ends = [
        (tail.n_max, MANY_ABOVE + 5, many),
        (MANY_ABOVE - 5, FEW_BELOW + 1, medium),
        (FEW_BELOW - 1, tail.n_min, few),
    ]
    return np.concatenate([np.geomspace(*end) for end in ends]).round().astype(np.int64)


def pools(groups: Groups) -> NDArray[np.int64]:
    """Images per group before the split, in drawn order; empty groups have fewer than are held out."""
    n = groups.classes * len(CONTEXTS)
    if groups.empty >= n:
        raise UserError(f"{groups.empty} empty groups of {n}: leave some with training images.")
    train = np.geomspace(groups.n_max, groups.n_min, n - groups.empty).round().astype(np.int64)
    short = np.full(groups.empty, -(groups.held_out // 5))
    return groups.held_out + np.concatenate([train, short])[_order(n, NICOPP, groups.seed)]


def held_out_split(n: int, held_out: int) -> NDArray[np.str_]:
    """NICO++'s rule for a shuffled group of n: first min(n, held_out) are held, a third of them val."""
    place = np.arange(n)
    held = min(n, held_out)
    return np.where(place >= held, "train", np.where(place < held // 3, "val", "test"))


def imagenet_lt(tail: LongTail) -> Benchmark:
    """ImageNet-LT mini: the object classes in a long tail, contexts and appearances drawn by nature."""
    return _long_tailed(IMAGENET_LT, tuple(CLASSES), tail)


def places_lt(tail: LongTail) -> Benchmark:
    """Places-LT mini: the scene classes in a long tail, rare weather as rare appearances."""
    return _long_tailed(PLACES_LT, tuple(PLACES), tail)


def nicopp(groups: Groups) -> Benchmark:
    """NICO++ mini: object classes in six contexts, groups of unequal size, some empty in training."""
    classes = tuple(CLASSES)[:: len(CLASSES) // groups.classes][: groups.classes]
    cells = [(y, c) for y in range(len(classes)) for c in range(len(CONTEXTS))]
    parts = []
    for (label, context), n in zip(cells, pools(groups), strict=True):
        split = held_out_split(int(n), groups.held_out)
        parts.append(_keyed(split, label, context))
        parts.append(_keyed(np.full((split == "test").sum(), "final"), label, context))
    return _benchmark(NICOPP, pd.concat(parts), classes, CONTEXTS, groups)


def _long_tailed(name: str, classes: tuple[str, ...], tail: LongTail) -> Benchmark:
    counts = tail_counts(tail)
    if len(counts) != len(classes):
        raise UserError(
            f"{name} has {len(classes)} classes, its strata {list(tail.strata)} add up to {len(counts)}."
        )
    sizes = {"val": tail.n_val, "test": tail.n_test, "final": tail.n_test}
    parts = []
    for label, n in enumerate(counts[_order(len(classes), name, tail.seed)]):
        for split, size in {"train": int(n), **sizes}.items():
            parts.append(_keyed(np.full(size, split), label, 0))
    return _benchmark(name, pd.concat(parts), classes, ("",), tail)


def _order(n: int, name: str, seed: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.Philox(stable_seed("mini order", name, seed))).permutation(n)


def _keyed(split: NDArray[np.str_], label: int, context: int) -> pd.DataFrame:
    keys = [f"{part}-{label:03d}-{context}-{i:05d}" for i, part in enumerate(split)]
    return pd.DataFrame({"key": keys, "split": split, "label": label, "context": context})


def _benchmark(
    name: str,
    table: pd.DataFrame,
    classes: tuple[str, ...],
    contexts: tuple[str, ...],
    settings: LongTail | Groups,
) -> Benchmark:
    draw: Draw = replace(BENCHMARK, modes=settings.modes)
    # The same keys show other images under another seed or draw.
    manifest = Manifest(name, table, classes, contexts, f"seed {settings.seed}, {draw}")

    def factors(rows: pd.DataFrame) -> pd.DataFrame:
        seeds = [stable_seed("mini benchmark", name, settings.seed, key) for key in rows["key"]]
        kinds = [manifest.classes[label] for label in rows["label"]]
        contexts = [manifest.contexts[context] for context in rows["context"]]
        return sample(seeds, kinds, draw, contexts)

    def images(rows: pd.DataFrame) -> torch.Tensor:
        return torch.from_numpy(render(factors(rows)))

    return Benchmark(manifest, images, factors)

"""Tiny benchmarks by hand: as many images of each group and split as a test asks for."""

from types import SimpleNamespace

import pandas as pd
import torch

from fgsynth.data.benchmark import Benchmark, Manifest
from fgsynth.utils.seeds import generator

CLASSES = ("ant", "bee", "cat", "dog", "elk")


def no_generator(**parts):
    """Stands for the generator of an experiment that makes no image; parts: what a test asks of it."""
    return SimpleNamespace(check_prompts=lambda prompts: None, **parts)


def table(counts, n_contexts=1):
    """counts: split -> images of each group, at context + n_contexts * class."""
    rows = [
        (f"{split}-{group}-{i}", split, *divmod(group, n_contexts))
        for split, each in counts.items()
        for group, n in enumerate(each)
        for i in range(n)
    ]
    return pd.DataFrame(rows, columns=["key", "split", "label", "context"])


def manifest(counts, contexts=("",), **changes):
    n = max(map(len, counts.values())) // len(contexts)
    made = {"name": "tiny", "table": table(counts, len(contexts)), "classes": CLASSES[:n]}
    return Manifest(**{**made, "contexts": contexts, **changes})


def bench(counts, contexts=("",), factors=True):
    """Noise, brighter by class. Appearance: images 0, 1, 2, 3 ... of a group are of mode 0, 1, 0, 1 ..."""

    def images(rows):
        noise = [torch.rand(32, 32, 3, generator=generator(key)) for key in rows["key"]]
        level = torch.tensor(rows["label"].to_numpy()).float().reshape(-1, 1, 1, 1)
        return (50 * torch.stack(noise) + 50 * level).to(torch.uint8)

    def modes(rows):
        return pd.DataFrame({"mode": [int(key.split("-")[-1]) % 2 for key in rows["key"]]})

    return Benchmark(manifest(counts, contexts), images, modes if factors else None)

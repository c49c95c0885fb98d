"""Benchmarks in feature space: images with splits, and their features by a frozen extractor."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from fgsynth.config.schema import LongTail
from fgsynth.data import mini
from fgsynth.data.benchmark import COLUMNS, Manifest
from fgsynth.data.disk import image_set as disk
from fgsynth.data.disk import longtail
from fgsynth.data.registry import draw
from fgsynth.data.sources import ImageFiles, Rendered, Source
from fgsynth.latent.features.extract import extract
from fgsynth.latent.features.extractors import Extractor
from fgsynth.latent.features.feature_set import REST, FeatureSet, Strings
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import home

LONG_TAILED = (mini.IMAGENET_LT, mini.PLACES_LT)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A benchmark before its features are extracted: images, the split of each (n,), the classes' names."""

    source: Source
    split: Strings
    classes: tuple[str, ...]
    name: str


def featurise(extractor: Extractor, images: ImageSet, folder: Path | str, *, batch: int = 64) -> FeatureSet:
    """Extract the features of all splits of a benchmark into a folder (see `features.extract`)."""
    features, label = extract(extractor, images.source, folder, batch=batch)
    return FeatureSet(features, label, images.split, images.classes, images.name)


def mini_long_tail(name: str, world: LongTail) -> ImageSet:
    """Draw the mini world's ImageNet-LT or Places-LT: all splits, and the rest of the balanced training set.

    An image of the mini world is its key, and keys count within class and split: further training keys are
    further draws by nature, so the full balanced set, n_max of each class, contains the long-tailed one.
    Raises UserError for a benchmark that is not one of LONG_TAILED.
    """
    if name not in LONG_TAILED:
        raise UserError(f"No long-tailed benchmark '{name}': choose one of {', '.join(LONG_TAILED)}.")
    bench = draw(name, world)
    table = pd.concat([bench.manifest.table, _rest(bench.manifest)], ignore_index=True)
    split = table["split"].to_numpy(dtype=np.str_)
    return ImageSet(Rendered(bench, table), split, bench.manifest.classes, f"Mini {name}")


def _rest(manifest: Manifest) -> pd.DataFrame:
    """Rows that complete every class to the largest, with the keys that would come next."""
    train = manifest.rows("train")
    last = train.groupby("label").tail(1).set_index("label")["key"]
    n_max, rows = int(manifest.counts().max()), []
    for label, key in last.items():
        stem, _, number = key.rpartition("-")
        rows += [(f"{stem}-{i:05d}", REST, label, 0) for i in range(int(number) + 1, n_max)]
    return pd.DataFrame(rows, columns=COLUMNS)


def on_disk(found: disk.ImageSet) -> ImageSet:
    """Take a data set of image files, as `fgsynth.data.disk` lists them, in its manifest's order.

    Images are opened when they are needed. Raises UserError for what a manifest refuses.
    """
    table = found.manifest.table
    source = ImageFiles(tuple(found.paths(table)), torch.tensor(table["label"].to_numpy()))
    return ImageSet(source, table["split"].to_numpy(dtype=np.str_), found.classes, found.name)


def places_lt(lists: Path | str, root: Path | str) -> ImageSet:
    """Read Places-LT by its official lists Places_LT_{train,val,test}.txt (Liu et al. 2019): 365 classes.

    lists: the folder of the lists; root: of Places365's images, in any of the published layouts. There is
    no rest: the balanced set is not a list. Raises UserError for a missing or altered list.
    """
    return on_disk(longtail.load(longtail.PLACES_LT, home(root), home(lists)))

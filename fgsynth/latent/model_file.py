"""A classifier of features as files that can be shared, safetensors and JSON, and its use on new images."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fgsynth.data.disk.image_set import SUFFIXES
from fgsynth.latent.estimator import FeatureClassifier
from fgsynth.latent.features.extractors import Extractor, extractor
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import atomic, home, read_json, write_text
from fgsynth.utils.progress import progress

WEIGHTS, NOTE = "classifier.safetensors", "classifier.json"
BATCH = 32


def save(model: FeatureClassifier, classes: Sequence[str], source: Extractor, folder: Path) -> None:
    """Write a fitted classifier of an extractor's features: its linear layer, and in JSON what it needs.

    classes: names of the classes 0 to c - 1 that it was fitted on.
    """
    weight, bias = (torch.from_numpy(np.ascontiguousarray(part)) for part in model._folded())
    with atomic(folder / WEIGHTS) as partial:
        save_file({"weight": weight, "bias": bias}, partial)
    names = [classes[int(y)] for y in model.classes_]
    note = {"classes": names, "extractor": source.name, "weights": source.digest, "tau": model.tau_}
    write_text(folder / NOTE, json.dumps(note, indent=1))


def predict(folder: Path | str, images: Sequence[Path | str]) -> pd.DataFrame:
    """Predict the classes of image files: path, class, probability, second, its probability.

    images: files, and folders all of whose images are taken. Each needs one batch in memory at a time. Raises
    UserError for a folder without a classifier, an extractor whose weights are others than it was fitted on,
    no image, and one that cannot be read.
    """
    folder = home(folder)
    note = read_json(folder / NOTE, "give the folder that notebook 10 wrote")
    try:
        layer = load_file(folder / WEIGHTS)
        weight, bias, names = layer["weight"], layer["bias"], note["classes"]
        source, digest = str(note["extractor"]), note["weights"]
        whole = weight.shape[1] == len(bias) == len(names)
    except (OSError, SafetensorError, KeyError, IndexError) as error:
        raise UserError(f"{folder} holds no whole classifier ({error}): run notebook 10 again.") from error
    if not whole:
        raise UserError(
            f"{folder}: {WEIGHTS} and {NOTE} are of different classifiers: run notebook 10 again."
        )
    files = [file for image in images for file in _files(home(image))]
    if not files:
        raise UserError(f"No image ({', '.join(SUFFIXES)}) in {', '.join(map(str, images))}: give some.")
    reader = extractor(source)
    if reader.digest != digest:
        raise UserError(f"{source} has other weights than {folder} was fitted on: run notebook 10 again.")
    tables = []
    for start in progress(range(0, len(files), BATCH), "predicted"):
        mine = files[start : start + BATCH]
        shares = (reader(mine).double() @ weight + bias).softmax(1)
        top = shares.topk(2)
        columns = [[names[y] for y in column] for column in top.indices.T.tolist()]
        first, second = top.values.T.tolist()
        tables.append(pd.DataFrame({"path": mine, "class": columns[0], "probability": first,
                                    "second": columns[1], "its probability": second}))  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def _files(path: Path) -> list[Path]:
    """The path itself, or the images below it where it is a folder."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)

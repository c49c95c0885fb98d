"""A trained classifier, and the folder that its training leaves: recipe, history, weights."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fgsynth.data.sources import Source, fingerprint
from fgsynth.models.networks import Classifier, create
from fgsynth.train import checkpoint
from fgsynth.train.objectives.registry import of_json, to_json
from fgsynth.train.ranks import Ranks
from fgsynth.train.recipe import Compute, Recipe, Select
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import atomic, read_json, write_text

RECIPE, EPOCHS, NETWORK = "recipe.json", "epochs.csv", "network.safetensors"
ANEW = "remove its folder, and the training starts anew"


@dataclass(frozen=True)
class Trained:
    """A frozen network; its history, one row per epoch; the rule that chose the epoch of the weights.

    history: epoch (from 1), updates (so far), loss (mean over the epoch), rate (of the last update),
    seconds, data_seconds (of them, waiting for images and their augmentation) and, with validation
    images, val_overall, val_many, val_medium, val_few in percent (strata by real training counts).
    """

    network: Classifier
    history: pd.DataFrame
    select: Select

    @property
    def epoch(self) -> int:
        """The epoch whose weights these are; of equal ones the first."""
        if self.select == "last":
            return int(self.history["epoch"].iloc[-1])
        return int(self.history["epoch"].iloc[int(self.history["val_overall"].argmax())])

    @property
    def average_val(self) -> float:
        """Average validation accuracy of these weights, over images, in percent; NaN without validation."""
        if "val_overall" not in self.history:
            return math.nan
        return float(self.history["val_overall"][self.history["epoch"] == self.epoch].iloc[0])


def best(runs: Sequence[Trained]) -> int:
    """Index of the run with the best average validation accuracy, the first of equal ones.

    Raises UserError for no runs, or a run without validation.
    """
    values = [run.average_val for run in runs]
    if not values or np.isnan(values).any():
        raise UserError("The best of these runs is not known: train at least one, all of them with val.")
    return int(np.argmax(values))


def finished(folder: Path) -> bool:
    """Whether a folder holds a finished training."""
    return (folder / NETWORK).is_file()


def load(folder: Path, device: str | torch.device = "cpu") -> Trained:
    """Load a finished training. Raises UserError where it is not finished."""
    if not finished(folder):
        raise UserError(f"{folder} holds no finished training ({NETWORK} is missing): train into it first.")
    try:
        record = read_json(folder / RECIPE, ANEW)
        settings = record["recipe"]
        recipe = Recipe(**settings | {"objective": of_json(settings.get("objective"))})
        network = create(recipe.network, record["n_classes"], pretrained=recipe.pretrained, fetch=False)
        if recipe.objective is not None:
            network = recipe.objective.wrap(network, record["n_classes"], 0)
        network.load_state_dict(load_file(folder / NETWORK))
        history = pd.read_csv(folder / EPOCHS)
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"The training in {folder} is damaged: remove it, and it is trained anew.") from error
    network.to(torch.device(device)).to(memory_format=torch.channels_last)
    return Trained(network.eval().requires_grad_(False), history, recipe.select)


def record(
    recipe: Recipe, seed: int, n_classes: int, counts: Tensor, sources: dict[str, Source | None]
) -> dict[str, Any]:
    """Everything that decides a training, as recipe.json has it."""
    real, synthetic = sources["real"], sources["synthetic"]
    assert real is not None
    # Recipes of the default method are as they were before there were others.
    settings = {k: v for k, v in vars(recipe).items() if k != "objective"}
    method = {} if recipe.objective is None else {"objective": to_json(recipe.objective)}
    return {
        "recipe": settings | {"augment": list(recipe.augment)} | method,
        "seed": seed,
        "n_classes": n_classes,
        "updates_per_epoch": recipe.updates(len(real), synthetic is not None),
        "real_per_batch": recipe.real_per_batch(synthetic is not None),
        "counts_used": counts.tolist(),
        "images": {k: fingerprint(s, recipe.grouped) if s is not None else None for k, s in sources.items()},
        "versions": {"torch": str(torch.__version__), "timm": timm.__version__},
    }


def computed(compute: Compute, us: Ranks) -> dict[str, Any]:
    """Device, processes and precision of a training, for recipe.json; they decide roundings alone."""
    precision = compute.on(us.device)
    how = {"device": us.device.type, "processes": us.size, "precision": precision}
    return {"compute": how | {"accumulate": compute.accumulate}}


def done_before(folder: Path, wanted: dict[str, Any]) -> bool:
    """Whether the folder holds this training, finished."""
    path = folder / RECIPE
    if not path.is_file():
        return False
    same(path, read_json(path, ANEW), wanted)
    return finished(folder)


def same(path: Path, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse a file of another training; other libraries, devices and processes do not matter."""
    for key in wanted.keys() - {"versions", "compute"}:
        if there.get(key) != wanted[key]:
            raise UserError(
                f"{path} is of another training ({key} differs): take another folder or remove it."
            )


def store(folder: Path, trained: Trained, entries: dict[str, Any]) -> None:
    """Write a training; the network comes last, as its presence says that all is there."""
    write_text(folder / RECIPE, json.dumps(entries, indent=1))
    with atomic(folder / EPOCHS) as partial:
        trained.history.to_csv(partial, index=False)
    state = {key: value.cpu().contiguous() for key, value in trained.network.state_dict().items()}
    with atomic(folder / NETWORK) as partial:
        save_file(state, partial)
    checkpoint.remove(folder)

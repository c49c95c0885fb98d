"""Training of classifiers on real and synthetic pictures (FG step 5): in memory or files, CPU or GPU."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from fgsynth.batches import Batch, Source, count, fingerprint, plain_batches, training_batches
from fgsynth.batches import Pictures as Pictures
from fgsynth.errors import UserError
from fgsynth.losses import balanced_softmax, prior_counts
from fgsynth.metrics import long_tail_accuracy
from fgsynth.networks import Classifier, create
from fgsynth.paths import atomic, write_text
from fgsynth.pictures import from_uint8
from fgsynth.progress import progress
from fgsynth.recipe import Recipe as Recipe
from fgsynth.recipe import Select
from fgsynth.seeds import stable_seed
from fgsynth.threads import keep_freed_memory, one_thread

RECIPE, EPOCHS, NETWORK = "recipe.json", "epochs.csv", "network.safetensors"


@dataclass(frozen=True)
class Trained:
    """A frozen network; its history, one row per epoch; the rule that chose the epoch of the weights.

    history: epoch (from 1), updates (so far), loss (mean over the epoch), rate (of the last update),
    seconds, data_seconds (of them, waiting for pictures and their augmentation) and, with validation
    pictures, val_overall, val_many, val_medium, val_few in percent (strata by real training counts).
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
        """Average validation accuracy of these weights, over pictures, in percent; NaN without validation."""
        if "val_overall" not in self.history:
            return math.nan
        return float(self.history["val_overall"][self.history["epoch"] == self.epoch].iloc[0])


def train(
    real: Source,
    synthetic: Source | None,
    n_classes: int,
    recipe: Recipe,
    seed: int,
    *,
    val: Source | None = None,
    folder: Path | None = None,
    device: str | torch.device | None = None,
    workers: int = 0,
) -> Trained:
    """Minimise balanced softmax over mini-batches with a share of synthetic pictures (FG step 5, appendix E).

    The seed decides weights, batches and views; on one kind of CPU, equal calls give equal weights. A GPU
    computes in bfloat16 where that is safe, and repeats a run up to rounding. device: None is a GPU if there
    is one. folder: gets recipe.json, epochs.csv and network.safetensors; if they are there, of the same
    recipe, pictures and seed, they are loaded instead. workers: processes that read files ahead.
    Raises UserError for a class without pictures, labels out of range, a folder of another recipe, a loss
    that is not finite, and selection by validation without validation pictures.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if recipe.select != "last" and val is None:
        raise UserError(
            f"Recipe: select '{recipe.select}' needs validation pictures: pass val or select 'last'."
        )
    real_counts = count(real, n_classes, "real")
    synthetic_counts = count(synthetic, n_classes, "synthetic") if synthetic is not None else None
    share = recipe.real_per_batch(synthetic is not None) / recipe.batch
    counts = prior_counts(recipe.counts, real_counts, synthetic_counts, share)
    if val is not None:
        count(val, n_classes, "validation")
    sources = {"real": real, "synthetic": synthetic, "val": val}
    record = _record(recipe, seed, n_classes, counts, sources)
    if folder is not None and _finished(folder, record):
        return load(folder, where)
    fit = _Fit(recipe, counts, seed, where, n_classes, record["updates_per_epoch"])
    feed = training_batches(real, synthetic, recipe, fit.updates, seed, workers, where.type == "cuda")
    keep_freed_memory()
    # Small pictures: faster on one core each, and the same weights on any number of them.
    small = where.type == "cpu" and recipe.side is None
    with _own_randomness(seed, where), one_thread() if small else contextlib.nullcontext():
        trained = _run(fit, feed, val, real_counts, workers)
    if folder is not None:
        _store(folder, trained, record)
    return trained


@torch.no_grad()
def outputs(
    network: Classifier, pictures: Source, batch: int = 512, side: int | None = None, workers: int = 0
) -> tuple[Tensor, Tensor]:
    """Logits (n, c) and embeddings (n, k) of the plain view of pictures, on the CPU."""
    device = next(network.parameters()).device
    views = plain_batches(pictures, batch, side, workers)
    parts = [network(from_uint8(x.to(device, non_blocking=True))) for x in views]
    return torch.cat([p[0].cpu() for p in parts]), torch.cat([p[1].cpu() for p in parts])


def predict(
    network: Classifier, pictures: Source, batch: int = 512, side: int | None = None, workers: int = 0
) -> Tensor:
    """Logits (n, c) of pictures in their plain view (side: of the network's input, for files)."""
    return outputs(network, pictures, batch, side, workers)[0]


def finished(folder: Path) -> bool:
    """Whether `train` came to its end in a folder."""
    return (folder / NETWORK).is_file()


def load(folder: Path, device: str | torch.device = "cpu") -> Trained:
    """What `train` left in a folder. Raises UserError where it is not finished."""
    if not finished(folder):
        raise UserError(f"{folder} holds no finished training ({NETWORK} is missing): train into it first.")
    record = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
    recipe = Recipe(**record["recipe"])
    network = create(recipe.network, record["n_classes"], pretrained=recipe.pretrained, fetch=False)
    network.load_state_dict(load_file(folder / NETWORK))
    network.to(torch.device(device)).to(memory_format=torch.channels_last)
    history = pd.read_csv(folder / EPOCHS)
    return Trained(network.eval().requires_grad_(False), history, recipe.select)


def finite(loss: Tensor, update: int, rate: float) -> float:
    """A loss as a number. Raises UserError naming the update if it is NaN or infinite."""
    value = loss.item()
    if not math.isfinite(value):
        raise UserError(f"The loss is {value} at update {update}: lower the rate ({rate:g} now).")
    return value


class _Fit:
    """A network under training: its optimiser, schedule and averaged weights."""

    def __init__(
        self, recipe: Recipe, counts: Tensor, seed: int, device: torch.device, n_classes: int, per_epoch: int
    ) -> None:
        self.recipe, self.device, self.per_epoch = recipe, device, per_epoch
        self.counts = counts.to(device, torch.float32)
        network = create(recipe.network, n_classes, stable_seed("weights", seed), recipe.pretrained)
        # Convolutions of small pictures are faster with channels last, on both kinds of devices.
        self.network = network.to(device).to(memory_format=torch.channels_last)
        self.optimiser = recipe.build_optimiser(self.network.parameters())
        self.updates = recipe.epochs * per_epoch
        self.schedule = recipe.build_schedule(self.optimiser, self.updates)
        # Its decay rises from 0, or a short training would keep the random weights it began with.
        self.ema = ModelEmaV3(network, recipe.ema, use_warmup=True) if recipe.ema else None
        self.done = 0

    @property
    def kept(self) -> Classifier:
        """The network that is evaluated and kept."""
        return self.ema.module if self.ema else self.network

    @property
    def rate(self) -> float:
        """The learning rate now."""
        return float(self.optimiser.param_groups[0]["lr"])

    def update(self, x: Tensor, label: Tensor) -> float:
        """One step down the loss of a batch, uint8 (n, h, w, 3); the loss."""
        self.schedule.step_update(self.done)
        x, label = (t.to(self.device, non_blocking=True) for t in (x, label))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.network(from_uint8(x))[0]
        loss = balanced_softmax(logits.float(), label, self.counts, self.recipe.balanced)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.done += 1
        if self.ema:
            self.ema.update(self.network, self.done)
        return finite(loss, self.done, self.recipe.rate)

    def epoch(self, feed: Iterator[Batch]) -> dict[str, float]:
        """One epoch of updates; its row of the history."""
        self.network.train()
        start, waited, total = perf_counter(), 0.0, 0.0
        for _ in range(self.per_epoch):
            asked = perf_counter()
            x, label = next(feed)
            waited += perf_counter() - asked
            total += self.update(x, label)
        seconds = perf_counter() - start
        row = {"updates": self.done, "loss": total / self.per_epoch, "rate": self.rate}
        return {"epoch": self.done // self.per_epoch, **row, "seconds": seconds, "data_seconds": waited}


def _run(fit: _Fit, feed: Iterator[Batch], val: Source | None, real_counts: Tensor, workers: int) -> Trained:
    rows: list[dict[str, float]] = []
    best, weights = -math.inf, None
    for _ in progress(range(fit.recipe.epochs), f"training {fit.recipe.network}"):
        row = fit.epoch(feed)
        if val is not None:
            logits = predict(fit.kept.eval(), val, side=fit.recipe.side, workers=workers)
            accuracy = long_tail_accuracy(logits.argmax(1), val.label, real_counts)
            row |= {f"val_{name}": accuracy[name] for name in ("overall", "many", "medium", "few")}
            if fit.recipe.select == "best_average_val" and row["val_overall"] > best:
                best, weights = row["val_overall"], deepcopy(fit.kept.state_dict())
        rows.append(row)
    if weights is not None:
        fit.kept.load_state_dict(weights)
    return Trained(fit.kept.eval().requires_grad_(False), pd.DataFrame(rows), fit.recipe.select)


@contextlib.contextmanager
def _own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout draws from torch's global generators: they are seeded inside and as before outside."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(stable_seed("dropout", seed))
        yield


def _record(
    recipe: Recipe,
    seed: int,
    n_classes: int,
    counts: Tensor,
    sources: dict[str, Source | None],
) -> dict[str, Any]:
    """What decides a training, as recipe.json has it."""
    real, synthetic = sources["real"], sources["synthetic"]
    assert real is not None
    return {
        "recipe": dataclasses.asdict(recipe) | {"augment": list(recipe.augment)},
        "seed": seed,
        "n_classes": n_classes,
        "updates_per_epoch": recipe.updates(len(real), synthetic is not None),
        "real_per_batch": recipe.real_per_batch(synthetic is not None),
        "counts_used": counts.tolist(),
        "pictures": {k: fingerprint(s) if s is not None else None for k, s in sources.items()},
        "versions": {"torch": torch.__version__, "timm": timm.__version__},
    }


def _finished(folder: Path, record: dict[str, Any]) -> bool:
    """Whether the folder holds this training, finished; other versions of the libraries do not matter."""
    path = folder / RECIPE
    if not path.is_file():
        return False
    there = json.loads(path.read_text(encoding="utf-8"))
    for key in record.keys() - {"versions"}:
        if there.get(key) != record[key]:
            raise UserError(
                f"{path} is of another training ({key} differs): take another folder or remove it."
            )
    return (folder / NETWORK).is_file()


def _store(folder: Path, trained: Trained, record: dict[str, Any]) -> None:
    """Write a training; the network comes last, as its presence says that all is there."""
    write_text(folder / RECIPE, json.dumps(record, indent=1))
    with atomic(folder / EPOCHS) as partial:
        trained.history.to_csv(partial, index=False)
    state = {key: value.cpu().contiguous() for key, value in trained.network.state_dict().items()}
    with atomic(folder / NETWORK) as partial:
        save_file(state, partial)

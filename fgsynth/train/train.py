"""Training of classifiers on real and synthetic images (FG step 5): in memory or files, CPU or GPUs."""

import contextlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from fgsynth.config.checked import checked
from fgsynth.config.schema import Count, NotNegativeCount
from fgsynth.data.images import from_uint8
from fgsynth.data.sources import Source, contexts, count
from fgsynth.evaluate.metrics import long_tail_accuracy
from fgsynth.models.networks import OWN, Classifier
from fgsynth.train import checkpoint, launch
from fgsynth.train.batches import keys, plain_batches, training_batches
from fgsynth.train.loop import Fit
from fgsynth.train.losses import prior_counts
from fgsynth.train.objective import Batch
from fgsynth.train.ranks import Device, Ranks, ranks, started
from fgsynth.train.recipe import Compute, Recipe
from fgsynth.train.run_folder import Trained, computed, done_before, finished, load, record, same, store
from fgsynth.utils.errors import UserError
from fgsynth.utils.interrupts import AGAIN, Stopped, listening
from fgsynth.utils.parallel import keep_freed_memory, one_thread
from fgsynth.utils.progress import progress
from fgsynth.utils.seeds import stable_seed

COMPUTE = Compute()
AT_ONCE = 512
"""Images that a network is applied to at once."""


@checked
def train(
    real: Source,
    synthetic: Source | None,
    n_classes: Count,
    recipe: Recipe,
    seed: int,
    *,
    val: Source | None = None,
    folder: Path | None = None,
    device: Device = None,
    workers: NotNegativeCount = 0,
    compute: Compute = COMPUTE,
    processes: Count | None = 1,
) -> Trained:
    """Minimise balanced softmax, or the recipe's objective, on batches with a share of synthetic images.

    FG step 5, appendix E. The seed decides weights, batches and views; on one kind of CPU, equal calls give
    equal weights. A GPU repeats a run up to rounding. device: None is a GPU if there is one. folder: gets
    recipe.json, epochs.csv and network.safetensors; if they are there, of the same recipe, images and seed,
    they are loaded instead; a run that was stopped or killed goes on from its checkpoint there. workers:
    processes that read files ahead. processes: to train one network data-parallel, each with its share of
    every batch and the same weights up to rounding, whatever their number; None is one per visible GPU,
    but this one alone with a device or for the networks of `networks.OWN`, which take less time than
    processes to start, and so it is without a folder, through which processes hand over their result. Called
    in every process that torchrun or `accelerate launch` started, they train together and all return.
    Raises UserError for a class without images, labels out of range, a folder of another recipe, a loss
    that is not finite, selection by validation without validation images, a damaged checkpoint, batches
    too small for the processes, and as `launch.together`; Stopped after SIGTERM or SIGINT, with a folder.
    """
    if (processes or 1) > 1 and folder is None:
        raise UserError(f"train: {processes} processes hand over their result through a folder: pass folder.")
    alone = recipe.network in OWN or device is not None
    size = processes or (1 if alone else torch.cuda.device_count())
    if size > 1 and folder is not None and not started() and not finished(folder):
        of = partial(train, real, synthetic, n_classes, recipe, seed, val=val, folder=folder)
        launch.together(partial(of, device=device, workers=workers, compute=compute), size)
    # Finished by now, or to be trained here.
    real_counts, counts = counted(real, synthetic, val, n_classes, recipe)
    us = ranks(device)
    check_divisible(recipe, compute, us, val)
    sources = {"real": real, "synthetic": synthetic, "val": val}
    entries = record(recipe, seed, n_classes, counts, sources) | computed(compute, us)
    if folder is not None and done_before(folder, entries):
        return load(folder, us.device)
    keep_freed_memory()
    with reproducible(recipe, seed, us):
        groups = group_counts(real, synthetic, n_classes, recipe)
        fit = Fit(recipe, counts, seed, us, n_classes, entries["updates_per_epoch"], compute, groups)
        if folder is not None:
            _restore(fit, folder, entries)
        pin, part = us.device.type == "cuda", {"rank": us.rank, "size": us.size}
        feed = training_batches(
            real, synthetic, recipe, fit.updates, seed, workers, pin, start=fit.done, **part
        )
        # Without a folder a stopped training could not go on: signals are as they were.
        with listening() if folder is not None else contextlib.nullcontext(lambda: False) as stopping:
            trained = _run(fit, feed, val, real_counts, workers, folder, entries, stopping)
            if folder is not None and us.first:
                store(folder, trained, entries)
            us.wait()
            if us.any(stopping()):
                raise Stopped(f"stopped when {folder} was finished, {AGAIN}")
    return trained


@torch.no_grad()
@checked
def outputs(
    network: Classifier,
    images: Source,
    side: Count | None = None,
    workers: NotNegativeCount = 0,
    rows: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits (n, c) and embeddings (n, k) of the plain view of images, or of some rows, on the CPU.

    side: of the network's input, for files. Raises UserError for no images.
    """
    if not len(images):
        raise UserError("There are no images to predict: give at least one.")
    device = next(network.parameters()).device
    views = plain_batches(images, AT_ONCE, side, workers, rows)
    parts = [network(from_uint8(x.to(device, non_blocking=True))) for x in views]
    return torch.cat([p[0].cpu() for p in parts]), torch.cat([p[1].cpu() for p in parts])


def predict(
    network: Classifier, images: Source, side: int | None = None, workers: int = 0, rows: Tensor | None = None
) -> Tensor:
    """Logits (n, c) of images in their plain view; arguments and errors as of `outputs`."""
    return outputs(network, images, side, workers, rows)[0]


def _restore(fit: Fit, folder: Path, entries: dict[str, Any]) -> None:
    """Go on from the checkpoint, if there is one. Raises UserError if it is of another training."""
    if (found := checkpoint.read(folder)) is not None:
        same(folder / checkpoint.NAME, found["record"], entries)
        fit.restore(found)


def _run(
    fit: Fit,
    feed: Iterator[Batch],
    val: Source | None,
    real_counts: Tensor,
    workers: int,
    folder: Path | None,
    entries: dict[str, Any],
    stopping: Callable[[], bool],
) -> Trained:
    epochs, written = fit.recipe.epochs, monotonic()
    for epoch in progress(range(len(fit.rows), epochs), f"training {fit.recipe.network}"):
        row = fit.epoch(feed, stopping)
        if row is not None:
            fit.rows.append(row if val is None else row | validation_row(fit, val, real_counts, workers))
        unfinished = folder is not None and epoch + 1 < epochs
        stop = row is None or (unfinished and fit.ranks.any(stopping()))
        if stop or (unfinished and fit.ranks.any(monotonic() - written >= fit.compute.checkpoint)):
            state = fit.state() | {"record": entries}
            if folder is not None and fit.ranks.first:
                checkpoint.write(folder, state)
            fit.ranks.wait()
            written = monotonic()
        if stop:
            raise Stopped(f"stopped after update {fit.done} of {fit.updates} in {folder}, {AGAIN}")
    return ended(fit)


def ended(fit: Fit) -> Trained:
    """The frozen network of a training, with the weights that the recipe selects."""
    if fit.weights:
        fit.network.load_state_dict(fit.weights)
    return Trained(fit.network.eval().requires_grad_(False), pd.DataFrame(fit.rows), fit.recipe.select)


def validation_row(fit: Fit, val: Source, real_counts: Tensor, workers: int) -> dict[str, float]:
    """Accuracies of the weights after an epoch, in percent; the best by their average are set aside."""
    rows = fit.ranks.rows(len(val))
    logits = predict(fit.network.eval(), val, side=fit.recipe.side, workers=workers, rows=rows)
    predicted = fit.ranks.joined(logits.argmax(1), len(val))
    accuracy = long_tail_accuracy(predicted, val.label, real_counts)
    if fit.recipe.select == "best_average_val" and accuracy["overall"] > fit.best:
        fit.best, fit.weights = accuracy["overall"], deepcopy(fit.network.state_dict())
    return {f"val_{name}": accuracy[name] for name in ("overall", "many", "medium", "few")}


def counted(
    real: Source, synthetic: Source | None, val: Source | None, n_classes: int, recipe: Recipe
) -> tuple[Tensor, Tensor]:
    """Real images by class, and the n_c of balanced softmax, (c,) each, of sources fit for the recipe."""
    if recipe.select != "last" and val is None:
        raise UserError(
            f"Recipe: select '{recipe.select}' needs validation images: pass val or select 'last'."
        )
    real_counts = count(real, n_classes, "real")
    synthetic_counts = count(synthetic, n_classes, "synthetic") if synthetic is not None else None
    if val is not None:
        count(val, n_classes, "validation")
    share = recipe.real_per_batch(synthetic is not None) / recipe.batch
    return real_counts, prior_counts(recipe.counts, real_counts, synthetic_counts, share)


def group_counts(real: Source, synthetic: Source | None, n_classes: int, recipe: Recipe) -> Tensor | None:
    """Training images by group, (n_classes * contexts,), for an objective that knows groups."""
    if not recipe.grouped:
        return None
    known = [rows.group for rows in keys(real, synthetic, True) if rows is not None]
    length = n_classes * contexts(real, synthetic)
    return torch.stack([group.bincount(minlength=length) for group in known if group is not None]).sum(0)


def check_divisible(recipe: Recipe, compute: Compute, us: Ranks, val: Source | None) -> None:
    """Refuse a share without an image."""
    if recipe.batch < us.size * compute.accumulate:
        raise UserError(
            f"Recipe: a batch of {recipe.batch} has no image for each of {us.size} processes times "
            f"{compute.accumulate} micro-batches: raise batch, or lower accumulate or the processes."
        )
    if val is not None and len(val) < us.size:
        raise UserError(
            f"The validation set has {len(val)} images for {us.size} processes: add some or start fewer."
        )


@contextlib.contextmanager
def reproducible(recipe: Recipe, seed: int, us: Ranks) -> Iterator[None]:
    """Seed torch's global generators, which dropout draws from, within the block; small images on one core.

    Small images are faster on one core each, with the same weights on any number of them.
    """
    small, gpus = us.device.type == "cpu" and recipe.side is None, [us.device] * (us.device.type == "cuda")
    with torch.random.fork_rng(devices=gpus), one_thread() if small else contextlib.nullcontext():
        # Processes have other images and draw other masks.
        torch.manual_seed(stable_seed("dropout", seed, *([us.rank] if us.rank else [])))
        yield

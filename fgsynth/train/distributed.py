"""Training on all GPUs of a machine: a large network on all of them, or one job on each of them."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from fgsynth.data.sources import Source
from fgsynth.models.networks import OWN
from fgsynth.train import launch
from fgsynth.train import train as training
from fgsynth.train.ranks import started
from fgsynth.train.recipe import Compute, Recipe
from fgsynth.train.run_folder import Trained, finished
from fgsynth.utils.progress import progress

T = TypeVar("T")


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
    compute: Compute = training.COMPUTE,
    processes: int | None = None,
) -> Trained:
    """`training.train`, data-parallel by one process per visible GPU where there are several.

    The same batches, and the same weights up to rounding, whatever their number. In this process alone where
    there are not two GPUs, without a folder, through which processes hand over their result, and for the
    networks of `networks.OWN`, which take less time than the processes to start. workers: of each process.
    processes: another number, also of CPU processes (device "cpu").
    Raises as `training.train` and `launch.together`.
    """
    count = processes or (1 if recipe.network in OWN or device is not None else torch.cuda.device_count())
    work = partial(training.train, real, synthetic, n_classes, recipe, seed, val=val, folder=folder)
    work = partial(work, device=device, workers=workers, compute=compute)
    if count > 1 and folder is not None and not started() and not finished(folder):
        launch.together(work, count)
    # Finished by now, or to be trained here: it finds out.
    return work()


def each(
    function: Callable[[T], object], items: Iterable[T], bar: str, *, processes: int | None = None
) -> None:
    """`function` of every item: one job per GPU at a time, or one after another, each on all GPUs.

    The rule: with as many jobs as GPUs or more, each GPU takes the next job when it is done with one, as
    independent jobs need not wait for each other; with fewer jobs, or a single GPU, they are done here one
    after another, and a job that calls `train` uses all GPUs. function: leaves what it makes in files.
    processes: another number than that of the visible GPUs. Raises as `launch.apart` or as `function`.
    """
    todo = list(items)
    count = processes or torch.cuda.device_count()
    if count < 2 or len(todo) < count or started():
        for item in progress(todo, bar):
            function(item)
    else:
        launch.apart(function, todo, count, bar)

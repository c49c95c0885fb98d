"""Closed loop: cycles of synthesis, training and feedback by the classifier in training, at FG's budget.

One-shot FG (steps 1 to 5) has one guide, which is never trained on a synthetic image. Here the set comes in
K parts at equal shares of the updates, and each part after the first is guided by the classifier trained on
the parts before it (FG's future work). The K parts together are one-shot FG's plan, and all cycles together
take its updates, so that K = 1 is one-shot FG.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fgsynth.beyond.growing import Growing, counts_with, part_of, selecting, validation_accuracy
from fgsynth.experiments.experiment import SYNTHESIS, Experiment
from fgsynth.generate.plan import Method
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.train.ranks import ranks, started
from fgsynth.train.run_folder import Trained, finished, load, record, store
from fgsynth.train.train import reproducible
from fgsynth.utils.cache import fingerprint, weights_digest
from fgsynth.utils.errors import UserError
from fgsynth.utils.parallel import keep_freed_memory, spread
from fgsynth.utils.paths import atomic

CODE = (*SYNTHESIS, "beyond/closed_loop", "beyond/growing")
"""The code that a closed loop depends on."""
RECORDS = "records.csv"
"""The records of a loop's cycles, in its folder."""
Job = tuple[Experiment, int, Method]
"""An experiment, cycles, and how its images are made."""


@dataclass(frozen=True)
class Loop:
    """The last classifier of a closed loop, all synthetic images, and what each cycle did.

    records: a row per cycle: cycle (from 0), start (updates of the loop ahead of it, when its part came),
    updates (its own), images (synthetic ones trained on), val (average validation accuracy at its end, in
    percent; NaN without validation images), before (mean criterion of its part's guide at the first guided
    step, entropy in nats for FG's entropy; NaN without feedback).
    """

    trained: Trained
    synthetic: SyntheticSet
    records: pd.DataFrame


@dataclass(frozen=True)
class Looped:
    """A closed loop as it is kept: classes predicted of a split, (n,), and its records."""

    predicted: NDArray[np.int64]
    records: pd.DataFrame

    @property
    def n_synthetic(self) -> int:
        """Synthetic images made."""
        return int(self.records["images"].iloc[-1])


def closed_loop(exp: Experiment, cycles: int, method: Method, seed: int) -> Loop:
    """Synthesise, train and guide in cycles, at the images and updates of one-shot FG.

    The first part is guided as in one-shot FG, by a classifier of real images (FG step 1); a method without
    criteria gives the loop without feedback, whose set only grows. seed: of the classifier. On one kind of
    CPU equal calls give equal weights. Parts are kept as all synthetic sets are: a loop that was stopped
    trains again, up to rounding on a GPU, but finds the parts of equal guides. Raises UserError for more
    cycles than updates or than images of any group, several processes started to train together, and sets
    too large for memory.
    """
    _check(exp, cycles)
    keep_freed_memory()
    us = ranks()
    with reproducible(exp.recipe, seed, us):
        run = Growing(exp, method, cycles, seed, us)
        total = run.fit.updates
        for i in range(1, cycles):
            run.advance(i * total // cycles)
            run.grow(validation_accuracy(exp, run.fit.network))
        run.advance(total)
        trained = run.end()
    return Loop(trained, SyntheticSet.joined(run.parts), pd.DataFrame(run.rows))


def loop_folder(exp: Experiment, cycles: int, method: Method, seed: int) -> Path:
    """Where a loop is kept, under everything that it depends on."""
    guide = weights_digest(exp.guide) if method.criteria else ""
    made = (exp.bench.digest, exp.made_by, vars(method), guide, exp.seed)
    name = fingerprint(CODE, *made, cycles, vars(exp.recipe), seed)
    return exp.work / exp.bench.manifest.folder / "loops" / name


def run_loop(exp: Experiment, cycles: int, method: Method, seed: int, split: str) -> Looped:
    """A closed loop and what its classifier predicts of a split; loaded where it ran before.

    Raises UserError as `closed_loop`.
    """
    folder = loop_folder(exp, cycles, method, seed)
    if not finished(folder):
        _keep(folder, exp, cycles, seed, closed_loop(exp, cycles, method, seed))
    # Read back even when it is new, so that both give the same numbers.
    records = pd.read_csv(folder / RECORDS)
    return Looped(exp.trainings.predicted(load(folder).network, split, folder), records)


def run_loops(
    jobs: Sequence[Job], seeds: Sequence[int], split: str, *, processes: int | None = None
) -> list[list[Looped]]:
    """Closed loops of several kinds by several seeds each, one per core at a time, on a GPU one by one.

    All together, so that no core waits while the last seed of a kind runs. processes: another number than
    that of the cores. Raises UserError as `closed_loop`.
    """
    for exp, cycles, method in jobs:
        _check(exp, cycles)
        if not all(finished(loop_folder(exp, cycles, method, seed)) for seed in seeds):
            # What seeds share, they must not fill at the same time: the first part, or all without feedback.
            for k in range(1 if method.criteria else cycles):
                part_of(exp, method, k, cycles)
    work = [partial(run_loop, *job, seed, split) for job in jobs for seed in seeds]
    count = 1 if torch.cuda.is_available() else processes
    ran = spread(lambda loop: loop(), work, "closed loops", processes=count)
    return [ran[i * len(seeds) : (i + 1) * len(seeds)] for i in range(len(jobs))]


def _check(exp: Experiment, cycles: int) -> None:
    name, most = exp.bench.manifest.name, int(exp.missing.max())
    if started():
        raise UserError("Closed loops train in one process each: start without torchrun or accelerate.")
    if cycles > most:
        raise UserError(
            f"{name}: a closed loop of {cycles} cycles, but no group gets more than {most} synthetic images: "
            "lower cycles or raise fill_to."
        )
    if cycles > (updates := exp.recipe.epochs * exp.recipe.updates(len(exp.real), True)):
        raise UserError(
            f"{name}: a closed loop of {cycles} cycles, but its recipe has {updates} updates: lower cycles "
            "or raise epochs."
        )


def _keep(folder: Path, exp: Experiment, cycles: int, seed: int, loop: Loop) -> None:
    """Write a loop; the network comes last, as its presence means that all is there."""
    made = loop.synthetic.images
    sources = {"real": exp.real, "synthetic": made, "val": selecting(exp)}
    noted = record(exp.recipe, seed, exp.n_classes, counts_with(exp, made), sources)
    with atomic(folder / RECORDS) as partial_file:
        loop.records.to_csv(partial_file, index=False)
    store(folder, loop.trained, noted | {"closed_loop": cycles})

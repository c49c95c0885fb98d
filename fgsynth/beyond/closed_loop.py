"""Closed loop: cycles of synthesis, training and feedback by the classifier in training, at FG's budget.

One-shot FG (steps 1 to 5) has one guide, which is never trained on a synthetic image. Here the set comes in
K parts, and each part after the first is guided by the classifier trained on the parts before it. Neither
paper did so; Deliberate Practice (Askari-Hemmat et al. 2025, arXiv 2502.15588) adds images when validation
accuracy no longer rises, as `triggered` does. The K parts together are one-shot FG's plan, and all cycles
together take its updates, so that K = 1 is one-shot FG.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fgsynth.beyond.growing import (
    Growing,
    counts_with,
    cycle,
    has_validation,
    part_of,
    selecting,
    validation_accuracy,
)
from fgsynth.experiments.experiment import SYNTHESIS, Experiment
from fgsynth.generate.plan import Method
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.models.networks import Classifier
from fgsynth.train.ranks import ranks, started
from fgsynth.train.run_folder import Trained, finished, load, record, store
from fgsynth.train.train import reproducible
from fgsynth.utils.cache import fingerprint, weights_digest
from fgsynth.utils.errors import UserError
from fgsynth.utils.parallel import keep_freed_memory, spread
from fgsynth.utils.paths import atomic
from fgsynth.utils.seeds import stable_seed

Kind = Literal["continued", "restarted", "triggered"]
CODE = (*SYNTHESIS, "beyond/closed_loop", "beyond/growing")
"""The code that a closed loop depends on."""
RECORDS = "records.csv"
"""The records of a loop's cycles, in its folder."""


@dataclass(frozen=True)
class LoopSettings:
    """How a closed loop runs.

    kind: "continued" is one training whose set grows after equal shares of the updates; "restarted" begins
    each cycle with new weights; "triggered" is continued, but a part comes only when validation stagnates.
    cycles: K, the parts that the set comes in; of a triggered loop the most there may be.
    every, patience: of a triggered loop, updates from one check of the validation accuracy to the next, and
    the checks in a row without a new best after which a part comes.
    """

    kind: Kind = "continued"
    cycles: int = 1
    patience: int = 3
    every: int = 10


Job = tuple[Experiment, LoopSettings, Method]
"""A kind of loop of an experiment."""


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


def closed_loop(exp: Experiment, settings: LoopSettings, method: Method, seed: int) -> Loop:
    """Synthesise, train and guide in cycles, at the images and updates of one-shot FG.

    The first part is guided as in one-shot FG, by a classifier of real images (FG step 1). seed: of the
    classifier. On one kind of CPU equal calls give equal weights. Parts are kept as all synthetic sets are:
    a loop that was stopped trains again, up to rounding on a GPU, but finds the parts of equal guides.
    Raises UserError for more cycles than updates or than images of any group, a triggered loop without
    validation images, several processes started to train together, and sets too large for memory.
    """
    _check(exp, settings)
    keep_freed_memory()
    run = _restarted if settings.kind == "restarted" else _grown
    return run(exp, settings, method, seed)


def total_updates(exp: Experiment) -> int:
    """Updates of one-shot FG's classifier, which all cycles of a loop share."""
    return exp.recipe.epochs * exp.recipe.updates(len(exp.real), True)


def shares(total: int, cycles: int) -> list[int]:
    """Updates of a restarted loop's cycles: in proportion to their images, at least one, `total` in sum.

    Cycle k has k + 1 of K parts, hence 2 (k + 1) / (K (K + 1)) of the total; rounded at the cycles' ends.
    """
    whole = cycles * (cycles + 1)
    rounded = [(2 * total * (k + 1) * (k + 2) + whole) // (2 * whole) for k in range(cycles)]
    ends = [max(end, k + 1) for k, end in enumerate(rounded)]
    return [end - start for start, end in pairwise([0, *ends])]


@dataclass
class Plateau:
    """The trigger of Deliberate Practice: validation accuracy has no new best in `patience` checks in a row.

    best: so far, in percent, over all parts; since: checks since it, or since the last part came.
    """

    patience: int
    best: float = -inf
    since: int = 0

    def reached(self, accuracy: float) -> bool:
        """Whether a part should come after a check with this accuracy; the checks are counted anew then."""
        self.since = 0 if accuracy > self.best else self.since + 1
        self.best = max(self.best, accuracy)
        if self.since < self.patience:
            return False
        self.since = 0
        return True


def loop_folder(exp: Experiment, settings: LoopSettings, method: Method, seed: int) -> Path:
    """Where a loop is kept, under everything that it depends on."""
    guide = weights_digest(exp.guide) if method.criteria else ""
    made = (exp.bench.digest, exp.made_by, vars(method), guide, exp.seed)
    name = fingerprint(CODE, *made, vars(settings), vars(exp.recipe), seed)
    return exp.work / exp.bench.manifest.folder / "loops" / name


def run_loop(exp: Experiment, settings: LoopSettings, method: Method, seed: int, split: str) -> Looped:
    """A closed loop and what its classifier predicts of a split; loaded where it ran before.

    Raises UserError as `closed_loop`.
    """
    folder = loop_folder(exp, settings, method, seed)
    if not finished(folder):
        _keep(folder, exp, settings, seed, closed_loop(exp, settings, method, seed))
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
    for exp, settings, method in jobs:
        _check(exp, settings)
        if not all(finished(loop_folder(exp, settings, method, seed)) for seed in seeds):
            # What seeds share, they must not fill at the same time: the first part, or all without feedback.
            for k in range(1 if method.criteria else settings.cycles):
                part_of(exp, method, k, settings.cycles)
    work = [partial(run_loop, *job, seed, split) for job in jobs for seed in seeds]
    count = 1 if torch.cuda.is_available() else processes
    ran = spread(lambda loop: loop(), work, "closed loops", processes=count)
    return [ran[i * len(seeds) : (i + 1) * len(seeds)] for i in range(len(jobs))]


def _check(exp: Experiment, settings: LoopSettings) -> None:
    name, k, most = exp.bench.manifest.name, settings.cycles, int(exp.missing.max())
    if started():
        raise UserError("Closed loops train in one process each: start without torchrun or accelerate.")
    if k > most:
        raise UserError(
            f"{name}: a closed loop of {k} cycles, but no group gets more than {most} synthetic images: "
            "lower cycles or raise fill_to."
        )
    if settings.kind != "triggered" and k > (updates := total_updates(exp)):
        raise UserError(
            f"{name}: a closed loop of {k} cycles, but its recipe has {updates} updates: lower cycles or "
            "raise epochs."
        )
    if settings.kind == "triggered" and not has_validation(exp):
        raise UserError(f"{name} has no validation images, which trigger parts: choose 'continued'.")


def _restarted(exp: Experiment, settings: LoopSettings, method: Method, seed: int) -> Loop:
    """New weights and a whole schedule in every cycle, on all parts so far; the last cycle's have the seed.

    Each cycle is one epoch of the recipe, so that nothing is selected within it, unless there is only one.
    """
    parts: list[SyntheticSet] = []
    rows: list[dict[str, float]] = []
    guide: Classifier | None = None
    each = shares(total_updates(exp), settings.cycles)
    for k, updates in enumerate(each):
        parts.append(part_of(exp, method, k, settings.cycles, guide))
        one = len(each) == 1
        recipe = exp.recipe if one else replace(exp.recipe, epochs=1, updates_per_epoch=updates)
        own = seed if k == len(each) - 1 else stable_seed("restarted", seed, k)
        trained = exp.trainings.train(recipe, own, SyntheticSet.joined(parts))
        guide = trained.network
        rows.append(cycle(sum(each[:k]), updates, parts, validation_accuracy(exp, guide)))
    return Loop(trained, SyntheticSet.joined(parts), pd.DataFrame(rows))


def _grown(exp: Experiment, settings: LoopSettings, method: Method, seed: int) -> Loop:
    """One training whose set grows by parts: at equal shares of the updates, or when validation stagnates."""
    us = ranks()
    with reproducible(exp.recipe, seed, us):
        run = Growing(exp, method, settings.cycles, seed, us)
        total, plateau = run.fit.updates, Plateau(settings.patience)
        continued = settings.kind == "continued"
        equal = [i * total // settings.cycles for i in range(1, settings.cycles)]
        for end in equal if continued else range(settings.every, total, settings.every):
            if len(run.parts) == settings.cycles:
                break
            run.advance(end)
            val = validation_accuracy(exp, run.fit.network)
            if continued or plateau.reached(val):
                run.grow(val)
        run.advance(total)
        trained = run.end()
    return Loop(trained, SyntheticSet.joined(run.parts), pd.DataFrame(run.rows))


def _keep(folder: Path, exp: Experiment, settings: LoopSettings, seed: int, loop: Loop) -> None:
    """Write a loop; the network comes last, as its presence means that all is there."""
    made = loop.synthetic.images
    sources = {"real": exp.real, "synthetic": made, "val": selecting(exp)}
    noted = record(exp.recipe, seed, exp.n_classes, counts_with(exp, made), sources)
    with atomic(folder / RECORDS) as partial_file:
        loop.records.to_csv(partial_file, index=False)
    store(folder, loop.trained, noted | {"closed_loop": vars(settings)})

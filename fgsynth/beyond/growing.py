"""A training in whose midst synthetic images are made by its own feedback and added to its set."""

from copy import deepcopy
from dataclasses import replace
from functools import partial
from math import nan

import torch
from torch import Tensor

from fgsynth.data.sources import Source
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.plan import Method
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.models.networks import Classifier
from fgsynth.train.batches import training_batches
from fgsynth.train.loop import Fit
from fgsynth.train.ranks import Ranks
from fgsynth.train.run_folder import Trained
from fgsynth.train.train import check_divisible, counted, ended, group_counts, validation_row


def part_of(
    exp: Experiment, method: Method, k: int, cycles: int, guide: Classifier | None = None
) -> SyntheticSet:
    """Part k of the `cycles` parts of a synthetic set, guided by the experiment's guide or by another.

    Raises UserError as `Experiment.synthetic`.
    """
    asking = exp if guide is None else replace(exp, guided_by=guide)
    # Whether images are made or found must not show in the dropout masks of the training around them.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        return asking.synthetic(method, part=(k, cycles))


def selecting(exp: Experiment) -> Source | None:
    """The validation images, where the recipe selects an epoch by them."""
    return exp.trainings.images("val") if exp.recipe.select != "last" else None


def counts_with(exp: Experiment, made: Source) -> Tensor:
    """The n_c of balanced softmax on real and these synthetic images, (c,), as `training.train` takes them.

    Raises UserError for labels out of range, and for a class that has none.
    """
    return counted(exp.real, made, selecting(exp), exp.n_classes, exp.recipe)[1]


def validation_accuracy(exp: Experiment, network: Classifier) -> float:
    """Average accuracy on the validation images, in percent; NaN where there are none."""
    m = exp.bench.manifest
    if "val" not in set(m.table["split"]):
        return nan
    label = m.rows("val")["label"].to_numpy()
    return 100 * float((exp.trainings.predicted(network.eval(), "val") == label).mean())


class Growing:
    """One training by an experiment's recipe, one optimiser and schedule, whose synthetic set comes in parts.

    fit: the training; parts: of the set, so far, out of `cycles`; rows: the records of ended cycles. The
    caller holds the random state and threads of `training.train`: with one part it then is that training.
    Raises UserError as `training.train` and `Experiment.synthetic`.
    """

    def __init__(self, exp: Experiment, method: Method, cycles: int, seed: int, us: Ranks) -> None:
        self.exp, self.seed, self.us, self.start = exp, seed, us, 0
        self.part = partial(part_of, exp, method, cycles=cycles)
        self.parts = [self.part(k=0)]
        self.rows: list[dict[str, float]] = []
        check_divisible(exp.recipe, exp.compute, us, selecting(exp))
        counts, groups = counts_with(exp, self.made), self._groups()
        per_epoch = exp.recipe.updates(len(exp.real), True)
        self.fit = Fit(exp.recipe, counts, seed, us, exp.n_classes, per_epoch, exp.compute, groups)
        self._feed()

    @property
    def made(self) -> Source:
        """All synthetic images so far."""
        return SyntheticSet.joined(self.parts).images

    def advance(self, end: int) -> None:
        """Train up to an update of the whole training; an epoch may be interrupted."""
        fit, val = self.fit, selecting(self.exp)
        while fit.done < end:
            row = fit.epoch(self.feed, lambda: fit.done >= end)
            if row is not None:
                real = self.exp.bench.manifest.counts()
                fit.rows.append(
                    row if val is None else row | validation_row(fit, val, real, self.exp.workers)
                )

    def grow(self, val: float) -> None:
        """End a cycle of this validation accuracy, and add a part guided by the classifier as it stands."""
        self._end(val)
        guide = deepcopy(self.fit.network).eval().requires_grad_(False)
        self.parts.append(self.part(k=len(self.parts), guide=guide))
        groups = self._groups()
        self.fit.counts = counts_with(self.exp, self.made).to(self.us.device, torch.float32)
        self.fit.group_counts = None if groups is None else groups.to(self.us.device, torch.float32)
        self._feed()

    def end(self) -> Trained:
        """End the last cycle and the training, with the weights that the recipe selects."""
        trained = ended(self.fit)
        self._end(validation_accuracy(self.exp, trained.network))
        return trained

    def _end(self, val: float) -> None:
        self.rows.append(
            {
                "cycle": len(self.parts) - 1,
                "start": self.start,
                "updates": self.fit.done - self.start,
                "images": sum(len(part.index) for part in self.parts),
                "val": val,
                "before": float(self.parts[-1].index["before"].mean()),
            }
        )
        self.start = self.fit.done

    def _groups(self) -> Tensor | None:
        return group_counts(self.exp.real, self.made, self.exp.n_classes, self.exp.recipe)

    def _feed(self) -> None:
        """Batches of the set as it is now; those of real images go on as if it had not grown."""
        exp, fit, pin = self.exp, self.fit, self.us.device.type == "cuda"
        self.feed = training_batches(
            exp.real, self.made, exp.recipe, fit.updates, self.seed, exp.workers, pin, start=fit.done
        )

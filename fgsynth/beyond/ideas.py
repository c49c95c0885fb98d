"""Ideas beyond both papers, as ways to synthetic sets: criteria, scales, allocation, filters, cheap paths."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fgsynth.beyond import allocation, filters
from fgsynth.beyond.committee import ensemble, epistemic_heads
from fgsynth.beyond.flops import operations
from fgsynth.beyond.scale_rule import ScaleRule, feedback_scales, held_out
from fgsynth.config.schema import Sampling
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.methods import FG, methods
from fgsynth.generate.plan import Method
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.guidance.schedule import Schedule
from fgsynth.utils.errors import UserError

UNGUIDED = "LDM (txt, img, dropout)"


@dataclass(frozen=True)
class Settings:
    """What the ideas need beyond the experiment's own settings.

    members: of the ensemble; heads: of the epistemic guide; level, grid: of the scale rule (`scale_rule`);
    pilot: images per class at each of its scales; worth: of a synthetic image in real ones,
    and law, an exponent or None (`allocation`); confidence: least probability of the filter; seeds: of the
    classifiers whose validation errors decide allocations.
    """

    members: int
    heads: int
    level: float
    pilot: int
    grid: tuple[float, ...]
    worth: float
    law: float | None
    confidence: float
    seeds: int


@dataclass(frozen=True)
class Way:
    """A way to a synthetic set: an experiment (its sampling, its guide), a method, and how many images.

    per_group: images of every group instead of filling. keep: which of the images are trained on, and a
    name of that filter. pilots: images made beforehand to decide something. trained: classifiers trained
    for it beyond the guide.
    """

    exp: Experiment
    method: Method
    per_group: NDArray[np.int64] | None = None
    keep: Callable[[SyntheticSet], tuple[NDArray[np.bool_], str]] | None = None
    pilots: int = 0
    trained: int = 0

    @cached_property
    def made(self) -> SyntheticSet:
        """All images, before any filter."""
        return self.exp.synthetic(self.method, per_group=self.per_group)

    @cached_property
    def kept(self) -> SyntheticSet:
        """The images that classifiers are trained on."""
        if self.keep is None:
            return self.made
        mask, name = self.keep(self.made)
        return filters.filtered(self.made, mask, name)

    def dropped(self) -> pd.DataFrame:
        """What the filter drops, as `quality_filter.dropped`."""
        mask = np.ones(len(self.made.index), dtype=bool) if self.keep is None else self.keep(self.made)[0]
        return filters.dropped(self.exp, self.made, mask)


def sampled(exp: Experiment, **changes: Any) -> Experiment:
    """The experiment with other settings of sampling, and the same guide, which does not depend on them."""
    sampling = exp.sampling.model_copy(update=changes)
    schedule = Schedule.from_scheduler(exp.generator.pipe.scheduler, sampling.n_steps)
    guide = exp.guide
    return replace(
        exp, sampling=sampling, generator=replace(exp.generator, schedule=schedule), guided_by=guide
    )


def pushes(sampling: Sampling) -> int:
    """How many steps of a path push the latent."""
    window = range(sampling.n_steps)[sampling.start : sampling.stop]
    return len(window) if sampling.reuse else len(window[:: sampling.every])


@dataclass(frozen=True)
class Ideas:
    """The ideas of one experiment by name; each is made when it is asked for, and once."""

    exp: Experiment
    settings: Settings
    _known: dict[str, Way] = field(default_factory=dict, repr=False)
    _counted: list[tuple[Experiment, Method, float]] = field(default_factory=list, repr=False)

    def __getitem__(self, name: str) -> Way:
        """The way of a name. Raises UserError for a name that there is not."""
        if name not in self._known:
            self._known[name] = self._way(name)
        return self._known[name]

    def _way(self, name: str) -> Way:
        check([name])
        if name in IDEAS:
            return IDEAS[name](self)
        return Way(self.exp, replace(self.fg, scale=float(name.removeprefix("w = "))))

    @property
    def fg(self) -> Method:
        """The printed method: entropy, one scale."""
        return methods(self.exp.sampling)[FG]

    @property
    def unguided(self) -> Method:
        """The same sampler without feedback."""
        return methods(self.exp.sampling)[UNGUIDED]

    @cached_property
    def errors(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Validation errors and training images of every group, by classifiers of real images alone."""
        return allocation.validation_errors(self.exp, range(self.settings.seeds))

    @cached_property
    def rule(self) -> ScaleRule:
        """The feedback scale of every class by what a held-out classifier recognises."""
        s, contexts = self.settings, len(self.exp.bench.manifest.contexts)
        return feedback_scales(self.exp, self.fg, (0.0, *s.grid), -(-s.pilot // contexts), s.level)

    def guided(self, **changes: Any) -> Way:
        """The printed method along another path, pushed as far in total."""
        exp = sampled(self.exp, **changes)
        share = pushes(self.exp.sampling) / pushes(exp.sampling)
        return Way(exp, replace(self.fg, scale=share * self.fg.scale))

    def each(self, way: Way) -> float:
        """Operations per image (10^9), counted once for ways that differ by their scales alone."""
        method = replace(way.method, scale=0.0, weights=())
        for exp, known, counted in self._counted:
            if exp is way.exp and known == method:
                return counted
        self._counted.append((way.exp, method, operations(way.exp, way.method)))
        return self._counted[-1][-1]

    def operations(self, way: Way) -> float:
        """Of all images of a way, pilots included (10^9)."""
        return self.each(way) * (len(way.made.index) + way.pilots)

    def affordable(self, way: Way) -> Way:
        """As many images as the printed method's operations buy, in proportion to what is missing."""
        times = self.each(self["FG entropy"]) / self.each(way)
        # Rounded down, so that it is never dearer.
        each = np.maximum(1, np.floor(times * self.exp.missing)).astype(np.int64)
        return replace(way, per_group=each)


def _criterion(name: str) -> Callable[[Ideas], Way]:
    return lambda ideas: Way(ideas.exp, replace(ideas.fg, criteria=(name,)))


def _committee(ideas: Ideas) -> Way:
    members = ideas.settings.members
    exp = replace(ideas.exp, guided_by=ensemble(ideas.exp, members))
    return Way(exp, replace(ideas.fg, criteria=("bald",)), trained=members - 1)


def _heads(ideas: Ideas) -> Way:
    exp = replace(ideas.exp, guided_by=epistemic_heads(ideas.exp, ideas.settings.heads))
    return Way(exp, replace(ideas.fg, criteria=("bald",)))


def _worst_first(ideas: Ideas) -> Way:
    """Scales in proportion to groups' validation errors: the worst are pushed most, the mean is FG's."""
    errors = ideas.errors[0]
    weights = tuple((errors / errors.mean()).tolist())
    return Way(ideas.exp, replace(ideas.fg, weights=weights), trained=ideas.settings.seeds)


def _scale_rule(ideas: Ideas) -> Way:
    return Way(ideas.exp, ideas.rule.method, pilots=ideas.rule.n_pilot, trained=1)


def _allocated(worst: bool) -> Callable[[Ideas], Way]:
    def way(ideas: Ideas) -> Way:
        errors, counts = ideas.errors
        budget, s = int(ideas.exp.missing.sum()), ideas.settings
        per_group = allocation.allocate(errors, counts, budget, s.worth, worst, s.law)
        return Way(ideas.exp, ideas.fg, per_group=per_group, trained=s.seeds)

    return way


def _by_prototype(ideas: Ideas) -> Way:
    def keep(made: SyntheticSet) -> tuple[NDArray[np.bool_], str]:
        return filters.by_prototype(ideas.exp, made), "prototype"

    return Way(ideas.exp, ideas.fg, keep=keep)


def _by_confidence(ideas: Ideas) -> Way:
    def keep(made: SyntheticSet) -> tuple[NDArray[np.bool_], str]:
        level, judge = ideas.settings.confidence, held_out(ideas.exp)
        return filters.by_confidence(ideas.exp, made, judge, level), f"confidence {level}"

    return Way(ideas.exp, ideas.fg, keep=keep, trained=1)


def _early_heads(ideas: Ideas) -> Way:
    """Epistemic heads ask in the first half of the path alone."""
    early, heads = ideas["guided early"], ideas["BALD, epistemic heads"]
    return Way(replace(early.exp, guided_by=heads.exp.guide), replace(early.method, criteria=("bald",)))


def _half(exp: Experiment) -> int:
    return max(1, exp.sampling.n_steps // 2)


def _halved(**changes: Any) -> Callable[[Ideas], Way]:
    return lambda ideas: ideas.guided(n_steps=_half(ideas.exp), **changes)


def _unguided_halved(ideas: Ideas) -> Way:
    return Way(sampled(ideas.exp, n_steps=_half(ideas.exp)), ideas.unguided)


def _reused(ideas: Ideas) -> Way:
    return ideas.guided(every=2 * ideas.exp.sampling.every, reuse=True)


IDEAS: Mapping[str, Callable[[Ideas], Way]] = {
    "unguided": lambda ideas: Way(ideas.exp, ideas.unguided),
    "FG entropy": lambda ideas: Way(ideas.exp, ideas.fg),
    "margin": _criterion("margin"),
    "least confidence": _criterion("least confidence"),
    "BALD, ensemble": _committee,
    "BALD, epistemic heads": _heads,
    "entropy near exemplars": _criterion("entropy near exemplars"),
    "worst first": _worst_first,
    "scale rule": _scale_rule,
    "allocated": _allocated(worst=False),
    "allocated to the worst": _allocated(worst=True),
    "filtered by prototype": _by_prototype,
    "filtered by confidence": _by_confidence,
    "guided early": lambda ideas: ideas.guided(stop=_half(ideas.exp)),
    "guided late": lambda ideas: ideas.guided(start=_half(ideas.exp)),
    "gradient reused": _reused,
    "half the steps": _halved(),
    "half the steps, second order": _halved(solver="dpm++2m"),
    "half the steps, unguided": _unguided_halved,
    "half the steps, more images": lambda ideas: ideas.affordable(ideas["half the steps"]),
    "unguided, more images": lambda ideas: ideas.affordable(ideas["unguided"]),
    "guided early, more images": lambda ideas: ideas.affordable(ideas["guided early"]),
    "early BALD, more images": lambda ideas: ideas.affordable(_early_heads(ideas)),
}
"""The ideas by name; "more images" are as many as the printed method's operations buy."""


def check(names: Iterable[str]) -> None:
    """Asks that ideas exist, before any is made. Raises UserError for the first name that there is not."""
    for name in names:
        if name not in IDEAS and not re.fullmatch(r"w = \d+(\.\d+)?", name):
            raise UserError(f"No idea '{name}': choose from {', '.join(IDEAS)}, or 'w = NUMBER'.")


COST = ["method", "images", "kept", "per_image", "cost", "trained"]


def costs(ideas: Ideas, names: Sequence[str]) -> pd.DataFrame:
    """What each way takes, times unguided sampling of the same set.

    Columns method, images, kept, per_image (times an unguided one's operations), cost (of all, pilots
    included), trained (classifiers beyond the guide).
    """
    base = ideas["unguided"]
    each, whole = ideas.each(base), ideas.operations(base)
    rows = []
    for name in names:
        way = ideas[name]
        sizes = len(way.made.index), len(way.kept.index)
        rows.append((name, *sizes, ideas.each(way) / each, ideas.operations(way) / whole, way.trained))
    return pd.DataFrame(rows, columns=COST)

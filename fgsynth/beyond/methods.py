"""Methods beyond both papers, by name: criteria, scales, allocations, filters, cheaper paths."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from fgsynth.beyond import allocation, filters
from fgsynth.beyond.committee import ensemble, epistemic_heads
from fgsynth.beyond.scale_rule import ScaleRule, feedback_scales, held_out
from fgsynth.config import names
from fgsynth.config.names import FG_ENTROPY, UNGUIDED, parse
from fgsynth.config.schema import BeyondSettings, Sampling
from fgsynth.data.tars import sha256
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.compose import guidance_of
from fgsynth.generate.methods import methods as printed
from fgsynth.generate.plan import Method, plan
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.utils.errors import UserError


@dataclass(frozen=True)
class ExtendedMethod:
    """A method with what it needs beyond `Method`: an experiment with another guide or path, a filter.

    per_group: images of every group instead of filling. keep: returns which of the images are trained on,
    (n,), and a name of that filter. pilots: images made beforehand to decide something. trained: classifiers
    trained for it beyond the guide.
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
        return self.made.rows(mask, f"{self.made.digest}-{name}-{sha256(np.packbits(mask).tobytes())[:12]}")

    def dropped(self) -> pd.DataFrame:
        """What the filter drops, as `filters.dropped`."""
        mask = np.ones(len(self.made.index), dtype=bool) if self.keep is None else self.keep(self.made)[0]
        return filters.dropped(self.exp, self.made, mask)


def operations(exp: Experiment, method: Method) -> float:
    """Floating-point operations per image (10^9), from its condition to its decoding, feedback included.

    Counted by the networks' own code (matrix products, convolutions and attention, forwards and backwards),
    while one image is made, so that they are the same on every machine. What is trained, fitted or embedded
    once for many images, guide, criteria and texts, is not in it.
    """
    group = int(exp.real.label.min()) * len(exp.bench.manifest.contexts)
    one = np.zeros(len(exp.bench.manifest.fill_counts()), dtype=np.int64)
    one[group] = 1
    rows = plan(exp.bench, one, exp.seed, method.image)
    make = exp.maker(method)
    # Once before: guide, criteria and embedded texts are made with the first image and then kept.
    make(rows)
    with FlopCounterMode(display=False) as counter:
        make(rows)
    return counter.get_total_flops() / 1e9


def pushes(sampling: Sampling) -> int:
    """How many steps of a path push the latent."""
    return len(guidance_of(sampling, 1.0).pushed_steps(sampling.n_steps))


@dataclass(frozen=True)
class Methods:
    """The methods of one experiment by name, each built once, at its first use."""

    exp: Experiment
    settings: BeyondSettings
    _known: dict[str, ExtendedMethod] = field(default_factory=dict, repr=False)
    _counted: dict[tuple[int, Method], float] = field(default_factory=dict, repr=False)

    def __getitem__(self, name: str) -> ExtendedMethod:
        """The method of a name. Raises UserError as `check`."""
        if name not in self._known:
            check([name])
            self._known[name] = METHODS.get(name, partial(_scaled, w=parse(name)[2]))(self)
        return self._known[name]

    @property
    def fg(self) -> Method:
        """The printed method: entropy, one scale."""
        return printed(self.exp.sampling)[FG_ENTROPY]

    @property
    def unguided(self) -> Method:
        """The same sampler without feedback."""
        return printed(self.exp.sampling)[UNGUIDED]

    @cached_property
    def errors(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Validation errors and training images of every group, by classifiers of real images alone."""
        return allocation.validation_errors(self.exp, range(self.settings.seeds))

    @cached_property
    def rule(self) -> ScaleRule:
        """The feedback scale of every class by what a held-out classifier recognises."""
        s, contexts = self.settings, len(self.exp.bench.manifest.contexts)
        return feedback_scales(self.exp, self.fg, (0.0, *s.grid), -(-s.pilot // contexts), s.level)

    def guided(self, **changes: Any) -> ExtendedMethod:
        """The printed method along another path, pushed as far in total."""
        exp = self.exp.sampled(**changes)
        share = pushes(self.exp.sampling) / pushes(exp.sampling)
        return ExtendedMethod(exp, replace(self.fg, scale=share * self.fg.scale))

    def each(self, method: ExtendedMethod) -> float:
        """Operations per image (10^9), counted once for methods that differ by their scales alone."""
        key = id(method.exp), replace(method.method, scale=0.0, weights=())
        if key not in self._counted:
            self._counted[key] = operations(method.exp, method.method)
        return self._counted[key]

    def operations(self, method: ExtendedMethod) -> float:
        """Operations of all images of a method, pilots included (10^9)."""
        return self.each(method) * (len(method.made.index) + method.pilots)

    def affordable(self, method: ExtendedMethod) -> ExtendedMethod:
        """As many images as the printed method's operations buy, in proportion to what is missing."""
        times = self.each(self[FG_ENTROPY]) / self.each(method)
        # Rounded down, so that it is never dearer.
        each = np.maximum(1, np.floor(times * self.exp.missing)).astype(np.int64)
        return replace(method, per_group=each)


def _scaled(methods: Methods, w: float) -> ExtendedMethod:
    return ExtendedMethod(methods.exp, replace(methods.fg, scale=w))


def _criterion(name: str) -> Callable[[Methods], ExtendedMethod]:
    return lambda methods: ExtendedMethod(methods.exp, replace(methods.fg, criteria=(name,)))


def _committee(methods: Methods) -> ExtendedMethod:
    members = methods.settings.members
    exp = replace(methods.exp, guided_by=ensemble(methods.exp, members))
    return ExtendedMethod(exp, replace(methods.fg, criteria=("bald",)), trained=members - 1)


def _heads(methods: Methods) -> ExtendedMethod:
    exp = replace(methods.exp, guided_by=epistemic_heads(methods.exp, methods.settings.heads))
    return ExtendedMethod(exp, replace(methods.fg, criteria=("bald",)))


def _worst_first(methods: Methods) -> ExtendedMethod:
    """Scales in proportion to groups' validation errors: the worst are pushed most, the mean is FG's."""
    errors = methods.errors[0]
    weights = tuple((errors / errors.mean()).tolist())
    return ExtendedMethod(methods.exp, replace(methods.fg, weights=weights), trained=methods.settings.seeds)


def _scale_rule(methods: Methods) -> ExtendedMethod:
    return ExtendedMethod(methods.exp, methods.rule.method, pilots=methods.rule.n_pilot, trained=1)


def _allocated(worst: bool) -> Callable[[Methods], ExtendedMethod]:
    def method(methods: Methods) -> ExtendedMethod:
        """Allocate the images that fill up, by validation errors."""
        errors, counts = methods.errors
        budget, s = int(methods.exp.missing.sum()), methods.settings
        per_group = allocation.allocate(errors, counts, budget, s.worth, worst, s.law)
        return ExtendedMethod(methods.exp, methods.fg, per_group=per_group, trained=s.seeds)

    return method


def _by_prototype(methods: Methods) -> ExtendedMethod:
    exp = methods.exp
    return ExtendedMethod(exp, methods.fg, keep=lambda made: (filters.by_prototype(exp, made), "prototype"))


def _by_confidence(methods: Methods) -> ExtendedMethod:
    exp, level = methods.exp, methods.settings.confidence
    return ExtendedMethod(
        exp,
        methods.fg,
        keep=lambda made: (filters.by_confidence(exp, made, held_out(exp), level), f"confidence {level}"),
        trained=1,
    )


def _early_heads(methods: Methods) -> ExtendedMethod:
    """BALD of epistemic heads, in the first half of the path alone."""
    early, heads = methods[names.EARLY], methods[names.BALD_HEADS]
    return ExtendedMethod(
        replace(early.exp, guided_by=heads.exp.guide), replace(early.method, criteria=("bald",))
    )


def _half(exp: Experiment) -> int:
    return max(1, exp.sampling.n_steps // 2)


def _halved(**changes: Any) -> Callable[[Methods], ExtendedMethod]:
    return lambda methods: methods.guided(n_steps=_half(methods.exp), **changes)


def _reused(methods: Methods) -> ExtendedMethod:
    return methods.guided(every=2 * methods.exp.sampling.every, reuse=True)


METHODS: Mapping[str, Callable[[Methods], ExtendedMethod]] = {
    UNGUIDED: lambda methods: ExtendedMethod(methods.exp, methods.unguided),
    FG_ENTROPY: lambda methods: ExtendedMethod(methods.exp, methods.fg),
    names.MARGIN: _criterion("margin"),
    names.LEAST_CONFIDENCE: _criterion("least confidence"),
    names.BALD_ENSEMBLE: _committee,
    names.BALD_HEADS: _heads,
    names.NEAR_EXEMPLARS: _criterion("entropy near exemplars"),
    names.WORST_FIRST: _worst_first,
    names.SCALE_RULE: _scale_rule,
    names.ALLOCATED: _allocated(worst=False),
    names.ALLOCATED_WORST: _allocated(worst=True),
    names.PROTOTYPE_FILTER: _by_prototype,
    names.CONFIDENCE_FILTER: _by_confidence,
    names.EARLY: lambda methods: methods.guided(stop=_half(methods.exp)),
    names.LATE: lambda methods: methods.guided(start=_half(methods.exp)),
    names.REUSED: _reused,
    names.HALF: _halved(),
    names.HALF_SECOND_ORDER: _halved(solver="dpm++2m"),
    names.UNGUIDED_MORE: lambda methods: methods.affordable(methods[UNGUIDED]),
    names.EARLY_MORE: lambda methods: methods.affordable(methods[names.EARLY]),
    names.EARLY_BALD_MORE: lambda methods: methods.affordable(_early_heads(methods)),
}
"""The methods by name; "more images" are as many as the printed method's operations buy."""


def check(wanted: Iterable[str]) -> None:
    """Raise UserError for the first name of no method."""
    for name in wanted:
        if name not in METHODS and parse(name)[:2] != (FG_ENTROPY, "w"):
            known = ", ".join(f"'{one}'" for one in METHODS)
            raise UserError(f"No method '{name}': choose from {known}, or '{FG_ENTROPY}, w NUMBER'.")


COST = ["method", "images", "kept", "per_image", "cost", "trained"]


def costs(methods: Methods, wanted: Sequence[str]) -> pd.DataFrame:
    """What each method takes, times unguided sampling of the same set.

    Columns method, images, kept, per_image (times an unguided one's operations), cost (of all, pilots
    included), trained (classifiers beyond the guide).
    """
    base = methods[UNGUIDED]
    each, whole = methods.each(base), methods.operations(base)
    rows = []
    for name in wanted:
        one = methods[name]
        sizes = len(one.made.index), len(one.kept.index)
        rows.append((name, *sizes, methods.each(one) / each, methods.operations(one) / whole, one.trained))
    return pd.DataFrame(rows, columns=COST)

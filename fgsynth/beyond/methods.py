"""Methods beyond both papers, by name: a criterion, an allocation, a filter, more images."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from fgsynth.beyond import allocation, filters
from fgsynth.beyond.epistemic_heads import epistemic_heads
from fgsynth.config import names
from fgsynth.config.names import FG_ENTROPY, UNGUIDED
from fgsynth.config.schema import BeyondSettings
from fgsynth.data.tars import sha256
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.methods import methods as printed
from fgsynth.generate.plan import Method, plan
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.utils.errors import UserError


@dataclass(frozen=True)
class ExtendedMethod:
    """A method with what it needs beyond `Method`: an experiment with another guide, a filter.

    per_group: images of every group instead of filling. keep: returns which of the images are trained on,
    (n,). trained: classifiers trained for it beyond the guide.
    """

    exp: Experiment
    method: Method
    per_group: NDArray[np.int64] | None = None
    keep: Callable[[SyntheticSet], NDArray[np.bool_]] | None = None
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
        mask = self.keep(self.made)
        return self.made.rows(mask, f"{self.made.digest}-{sha256(np.packbits(mask).tobytes())[:12]}")

    def dropped(self) -> pd.DataFrame:
        """What the filter drops, as `filters.dropped`."""
        mask = np.ones(len(self.made.index), dtype=bool) if self.keep is None else self.keep(self.made)
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
            self._known[name] = METHODS[name](self)
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

    def each(self, method: ExtendedMethod) -> float:
        """Operations per image (10^9), counted once for methods that differ by what is made alone."""
        key = id(method.exp), method.method
        if key not in self._counted:
            self._counted[key] = operations(method.exp, method.method)
        return self._counted[key]

    def operations(self, method: ExtendedMethod) -> float:
        """Operations of all images of a method (10^9)."""
        return self.each(method) * len(method.made.index)

    def affordable(self, method: ExtendedMethod) -> ExtendedMethod:
        """As many images as the printed method's operations buy, in proportion to what is missing."""
        times = self.each(self[FG_ENTROPY]) / self.each(method)
        # Rounded down, so that it is never dearer.
        each = np.maximum(1, np.floor(times * self.exp.missing)).astype(np.int64)
        return replace(method, per_group=each)


def _heads(methods: Methods) -> ExtendedMethod:
    exp = replace(methods.exp, guided_by=epistemic_heads(methods.exp, methods.settings.heads))
    return ExtendedMethod(exp, replace(methods.fg, criteria=("bald",)))


def _allocated(worst: bool) -> Callable[[Methods], ExtendedMethod]:
    def method(methods: Methods) -> ExtendedMethod:
        """Allocate the images that fill up, by validation errors."""
        errors, counts = methods.errors
        budget, s = int(methods.exp.missing.sum()), methods.settings
        per_group = allocation.allocate(errors, counts, budget, s.worth, worst, s.law)
        return ExtendedMethod(methods.exp, methods.fg, per_group=per_group, trained=s.seeds)

    return method


def _by_prototype(methods: Methods) -> ExtendedMethod:
    exp, tail = methods.exp, methods.settings.tail
    return ExtendedMethod(exp, methods.fg, keep=lambda made: filters.by_prototype(exp, made, tail))


METHODS: Mapping[str, Callable[[Methods], ExtendedMethod]] = {
    UNGUIDED: lambda methods: ExtendedMethod(methods.exp, methods.unguided),
    FG_ENTROPY: lambda methods: ExtendedMethod(methods.exp, methods.fg),
    names.BALD_HEADS: _heads,
    names.ALLOCATED: _allocated(worst=False),
    names.ALLOCATED_WORST: _allocated(worst=True),
    names.PROTOTYPE_FILTER: _by_prototype,
    names.UNGUIDED_MORE: lambda methods: methods.affordable(methods[UNGUIDED]),
}
"""The methods by name; "more images" are as many as the printed method's operations buy."""


def check(wanted: Iterable[str]) -> None:
    """Raise UserError for the first name of no method."""
    for name in wanted:
        if name not in METHODS:
            known = ", ".join(f"'{one}'" for one in METHODS)
            raise UserError(f"No method '{name}': choose from {known}.")


COST = ["method", "images", "kept", "per_image", "cost", "trained"]


def costs(methods: Methods, wanted: Sequence[str]) -> pd.DataFrame:
    """What each method takes, times unguided sampling of the same set.

    Columns method, images, kept, per_image (times an unguided one's operations), cost (of all), trained
    (classifiers beyond the guide).
    """
    base = methods[UNGUIDED]
    each, whole = methods.each(base), methods.operations(base)
    rows = []
    for name in wanted:
        one = methods[name]
        sizes = len(one.made.index), len(one.kept.index)
        rows.append((name, *sizes, methods.each(one) / each, methods.operations(one) / whole, one.trained))
    return pd.DataFrame(rows, columns=COST)

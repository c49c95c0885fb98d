"""Closed loops along the paths of methods, and what they take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fgsynth.beyond.closed_loop import Kind, Looped, LoopSettings, run_loops
from fgsynth.beyond.methods import COST, Methods
from fgsynth.config.names import (
    CONTINUED,
    CONTINUED_EARLY,
    EARLY,
    FG_ENTROPY,
    RESTARTED,
    TRIGGERED,
    UNGUIDED,
    variant,
)
from fgsynth.evaluate.scores import evaluate
from fgsynth.experiments.study import Scored


@dataclass(frozen=True)
class NamedLoop:
    """A closed loop along the path of a method, by its name."""

    method: str
    settings: LoopSettings


def run_all(
    methods: Methods, named: Mapping[str, NamedLoop], seeds: Sequence[int], split: str
) -> tuple[dict[str, list[Looped]], dict[str, Scored]]:
    """Runs of several seeds of every loop, in one pool of processes, and the same as methods of a study.

    n_synthetic of a study's method is the rounded mean over seeds. Raises UserError as `run_loops`.
    """
    chosen = [(methods[loop.method], loop.settings) for loop in named.values()]
    ran = run_loops([(one.exp, settings, one.method) for one, settings in chosen], seeds, split)
    scored = {}
    for name, loops in zip(named, ran, strict=True):
        predicted = np.stack([one.predicted for one in loops])
        n = round(float(np.mean([one.n_synthetic for one in loops])))
        nested = tuple(evaluate(methods.exp.bench, each, split) for each in predicted)
        scored[name] = Scored(name, tuple(seeds), n, predicted, nested)
    return dict(zip(named, ran, strict=True)), scored


def closed_loops(
    continued: Sequence[int],
    restarted: Sequence[int],
    triggered: Sequence[int],
    early: Sequence[int],
    patience: int,
    every: int,
) -> dict[str, NamedLoop]:
    """Closed loops by name, of so many cycles each, at most so many where they are triggered.

    early: continued ones whose feedback acts in the first half of the path alone.
    """
    return {
        **_named(CONTINUED, "continued", continued),
        **_named(RESTARTED, "restarted", restarted),
        **_named(TRIGGERED, "triggered", triggered, patience=patience, every=every),
        **_named(CONTINUED_EARLY, "continued", early, EARLY),
    }


def _named(
    name: str, kind: Kind, cycles: Sequence[int], method: str = FG_ENTROPY, **when: int
) -> dict[str, NamedLoop]:
    """Loops of a kind, one for each number of cycles."""
    return {variant(name, "cycles", k): NamedLoop(method, LoopSettings(kind, k, **when)) for k in cycles}


def loop_costs(
    methods: Methods, named: Mapping[str, NamedLoop], ran: Mapping[str, Sequence[Looped]]
) -> pd.DataFrame:
    """What closed loops take, as `costs`; images are means over seeds, each made for its own classifier."""
    base, rows = methods[UNGUIDED], []
    for name, runs in ran.items():
        n, each = sum(run.n_synthetic for run in runs) / len(runs), methods.each(methods[named[name].method])
        rows.append((name, n, n, each / methods.each(base), n * each / methods.operations(base), 0))
    return pd.DataFrame(rows, columns=COST)

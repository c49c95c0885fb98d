"""Closed loops by name, with feedback and without, and what they take."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from fgsynth.beyond.closed_loop import Looped, run_loops
from fgsynth.beyond.methods import COST, Methods
from fgsynth.config.names import CLOSED_LOOP, FG_ENTROPY, UNGUIDED, UNGUIDED_LOOP, variant
from fgsynth.evaluate.scores import evaluate
from fgsynth.experiments.study import Scored

Named = Mapping[str, tuple[str, int]]
"""Method and cycles of closed loops by name."""


def closed_loops(cycles: Sequence[int]) -> dict[str, tuple[str, int]]:
    """Closed loops of so many cycles, and beside each the one without feedback."""
    kinds = {CLOSED_LOOP: FG_ENTROPY, UNGUIDED_LOOP: UNGUIDED}
    return {variant(name, "cycles", k): (method, k) for k in cycles for name, method in kinds.items()}


def pairs_of(named: Named) -> list[tuple[str, str]]:
    """Every closed loop and the unguided one of as many cycles."""
    closed = {cycles: name for name, (method, cycles) in named.items() if method == FG_ENTROPY}
    return [(closed[cycles], name) for name, (method, cycles) in named.items() if method == UNGUIDED]


def run_all(
    methods: Methods, named: Named, seeds: Sequence[int], split: str
) -> tuple[dict[str, list[Looped]], dict[str, Scored]]:
    """Runs of several seeds of every loop, in one pool of processes, and the same as methods of a study.

    Raises UserError as `run_loops`.
    """
    jobs = [(methods.exp, cycles, methods[method].method) for method, cycles in named.values()]
    ran = dict(zip(named, run_loops(jobs, seeds, split), strict=True))
    scored = {}
    for name, loops in ran.items():
        predicted = np.stack([one.predicted for one in loops])
        nested = tuple(evaluate(methods.exp.bench, each, split) for each in predicted)
        scored[name] = Scored(name, tuple(seeds), loops[0].n_synthetic, predicted, nested)
    return ran, scored


def loop_costs(methods: Methods, named: Named, ran: Mapping[str, Sequence[Looped]]) -> pd.DataFrame:
    """What a seed's closed loop takes, as `costs`: every classifier has images of its own."""
    base, rows = methods[UNGUIDED], []
    for name, runs in ran.items():
        n, each = runs[0].n_synthetic, methods.each(methods[named[name][0]])
        rows.append((name, n, n, each / methods.each(base), n * each / methods.operations(base), 0))
    return pd.DataFrame(rows, columns=COST)

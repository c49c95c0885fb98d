"""Closed loops along the paths of ideas, and what they take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from fgsynth.beyond.closed_loop import Looped, LoopSettings, run_loops, scored
from fgsynth.beyond.ideas import COST, Ideas
from fgsynth.experiments.study import Scored


@dataclass(frozen=True)
class Loop:
    """A closed loop along the path of an idea."""

    path: str
    settings: LoopSettings


def run_all(
    ideas: Ideas, named: Mapping[str, Loop], seeds: Sequence[int], split: str
) -> tuple[dict[str, list[Looped]], dict[str, Scored]]:
    """Runs of several seeds of every loop, in one pool of processes, and the same as methods of a study.

    Each is made where it is not there yet. Raises UserError as `closed_loop.run_loops`.
    """
    ways = {name: ideas[loop.path] for name, loop in named.items()}
    jobs = [(ways[name].exp, loop.settings, ways[name].method) for name, loop in named.items()]
    ran = dict(zip(named, run_loops(jobs, seeds, split), strict=True))
    return ran, {name: scored(ideas.exp, name, loops, seeds, split) for name, loops in ran.items()}


def closed_loops(
    continued: Sequence[int],
    restarted: Sequence[int],
    triggered: Sequence[int],
    early: Sequence[int],
    patience: int,
    every: int,
) -> dict[str, Loop]:
    """Closed loops by name, of so many cycles each, at most so many where they are triggered.

    early: continued ones whose feedback acts in the first half of the path alone.
    """
    fg, parts = "FG entropy", "cycles"
    return {
        **{f"continued, {k} {parts}": Loop(fg, LoopSettings("continued", k)) for k in continued},
        **{f"restarted, {k} {parts}": Loop(fg, LoopSettings("restarted", k)) for k in restarted},
        **{f"triggered, at most {k}": Loop(fg, LoopSettings("triggered", k, patience, every))
           for k in triggered},
        **{f"continued, {k} {parts}, early": Loop("guided early", LoopSettings("continued", k))
           for k in early},
    }  # fmt: skip


def loop_costs(ideas: Ideas, named: Mapping[str, Loop], ran: Mapping[str, Sequence[Looped]]) -> pd.DataFrame:
    """What closed loops take, as `costs`; images are means over seeds, each made for its own classifier."""
    base = ideas["unguided"]
    rows = []
    for name, runs in ran.items():
        n, each = sum(run.n_synthetic for run in runs) / len(runs), ideas.each(ideas[named[name].path])
        rows.append((name, n, n, each / ideas.each(base), n * each / ideas.operations(base), 0))
    return pd.DataFrame(rows, columns=COST)

"""What a method's pictures cost: operations, counted while a few of them are made."""

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from fgsynth.experiment import Experiment
from fgsynth.plans import Method, plan

COUNTED = 4
"""Pictures that are made to count."""


def operations(exp: Experiment, method: Method) -> float:
    """Floating-point operations per picture (10^9), from its condition to its decoding, feedback included.

    Counted by the networks' own code (matrix products, convolutions and attention, forwards and backwards),
    so that they are the same on every machine; what is known after the first picture of a class, such as its
    text's embedding, is not in it.
    """
    groups = np.zeros(len(exp.bench.manifest.fill_counts()), dtype=np.int64)
    rows = plan(exp.bench, _some(groups, exp), exp.seed, method.image).head(COUNTED)
    make = exp.maker(method)
    make(rows)
    with FlopCounterMode(display=False) as counter:
        make(rows)
    return counter.get_total_flops() / len(rows) / 1e9


def _some(groups: np.ndarray, exp: Experiment) -> np.ndarray:
    """Pictures of the first class that has real ones to condition on."""
    label = int(exp.real.label.min())
    groups[label * len(exp.bench.manifest.contexts)] = COUNTED
    return groups

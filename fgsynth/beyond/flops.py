"""What a method's images cost: operations, counted while one of them is made."""

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.plan import Method, plan


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

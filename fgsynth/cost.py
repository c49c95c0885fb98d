"""What a method's pictures cost: operations, counted while one of them is made."""

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from fgsynth.experiment import Experiment
from fgsynth.plans import Method, plan


def operations(exp: Experiment, method: Method) -> float:
    """Floating-point operations per picture (10^9), from its condition to its decoding, feedback included.

    Counted by the networks' own code (matrix products, convolutions and attention, forwards and backwards),
    while one picture is made, so that they are the same on every machine. The embedding of a text is not in
    it, as it is made once for all pictures of a class or group.
    """
    group = int(exp.real.label.min()) * len(exp.bench.manifest.contexts)
    one = np.zeros(len(exp.bench.manifest.fill_counts()), dtype=np.int64)
    one[group] = 1
    rows = plan(exp.bench, one, exp.seed, method.image)
    # Neither is what is fitted or trained once: guide, criteria.
    if method.criteria:
        _ = exp.guide
    for name in method.criteria:
        exp.criterion(name)
    exp.speaking(method).embed_text(rows["prompt"].tolist())
    # No text stands for the other half of classifier-free guidance.
    exp.speaking(method).embed_text([""])
    with FlopCounterMode(display=False) as counter:
        exp.maker(method)(rows)
    return counter.get_total_flops() / 1e9

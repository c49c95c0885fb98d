"""Random search over learning rate and batch size, and the choice among runs (SubpopBench)."""

from collections.abc import Sequence

import numpy as np

from fgsynth.train.train import Trained
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import stable_seed

Range = tuple[float, float]


def random_search(
    draws: int, seed: int, rate: Range = (-4, -2), batch: Range = (6, 6.75)
) -> list[tuple[float, int]]:
    """Log-uniform draws of (rate, batch): 10^U(rate) and int(2^U(batch)) (Yang et al. 2023, SubpopBench).

    A longer search begins with the draws of a shorter one.
    """
    pairs = []
    for i in range(draws):
        random = np.random.default_rng(stable_seed("search", seed, i))
        pairs.append((float(10 ** random.uniform(*rate)), int(2 ** random.uniform(*batch))))
    return pairs


def best(runs: Sequence[Trained]) -> int:
    """Index of the run with the best average validation accuracy, the first of equal ones.

    Raises UserError for no runs, or a run without validation.
    """
    values = [run.average_val for run in runs]
    if not values or np.isnan(values).any():
        raise UserError("The best of these runs is not known: train at least one, all of them with val.")
    return int(np.argmax(values))

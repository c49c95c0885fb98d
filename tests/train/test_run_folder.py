import pandas as pd
import pytest

from fgsynth.models.networks import small
from fgsynth.train.recipe import random_search
from fgsynth.train.run_folder import Trained, best
from fgsynth.utils.errors import UserError


def test_random_search_draws_within_ranges_and_again_the_same():
    draws = random_search(40, 0)
    assert all(1e-4 <= rate <= 1e-2 and 64 <= batch <= 107 for rate, batch in draws)
    assert min(b for _, b in draws) < 70 < 95 < max(b for _, b in draws)
    assert random_search(3, 0) == draws[:3] != random_search(3, 1)
    assert all(1 <= r <= 10 and b == 8 for r, b in random_search(5, 0, rate=(0, 1), batch=(3, 3)))


def run(**columns):
    history = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0], **columns})
    return Trained(small(2), history, "best_average_val" if columns else "last")


def test_the_best_run_is_the_best_on_validation():
    runs = [run(val_overall=[40.0, 30.0]), run(val_overall=[20.0, 50.0]), run(val_overall=[50.0, 10.0])]
    assert [r.average_val for r in runs] == [40, 50, 50]
    assert best(runs) == 1
    for unknown in ([], [*runs, run()]):
        with pytest.raises(UserError, match="best of these runs is not known"):
            best(unknown)

import json
import math

import numpy as np
import pandas as pd
import pytest
from tiny_bench import bench

from fgsynth.evaluate.scores import contents, evaluate, flat, to_json

TRAIN = (101, 3, 4)
# Many, few, few; the appearances of the test images are 0, 1, 0, 1 / 0, 1 / 0.
TAIL = bench({"train": TRAIN, "test": (4, 2, 1)})
HIT = np.array([1, 1, 1, 0, 0, 1, 1], dtype=bool)
LABEL = np.array([0, 0, 0, 0, 1, 1, 2])
PREDICTED = np.where(HIT, LABEL, (LABEL + 1) % 3)


def test_the_numbers_by_hand():
    nested = evaluate(TAIL, PREDICTED, "test")
    assert nested["overall"] == pytest.approx(100 * 5 / 7)
    assert nested["per_class"] == {"ant": 75, "bee": 50, "cat": 100}
    assert (nested["many"], nested["few"]) == (75, 75)
    assert math.isnan(nested["medium"])
    assert "per_group" not in nested
    # By class and appearance: ant 100, 50; bee 0, 100; cat 100.
    modes = nested["modes"]
    assert modes["balanced"] == pytest.approx(70)
    assert modes["many, balanced"] == 75
    assert (modes["many, common"], modes["many, rare"]) == (100, 50)
    assert modes["few, balanced"] == pytest.approx(200 / 3)
    assert (modes["few, common"], modes["few, rare"]) == (50, 100)
    assert math.isnan(modes["medium, common"])


def test_groups_where_there_are_contexts_by_hand():
    two = bench({"train": (9, 0, 4, 5), "test": (2, 2, 0, 1)}, ("dim", "rock"), factors=False)
    nested = evaluate(two, np.array([0, 0, 0, 1, 0]), "test")
    assert nested["average_accuracy"] == pytest.approx(60)
    assert nested["worst_group_accuracy"] == 0
    groups = nested["per_group"]
    assert (groups["ant, dim"], groups["ant, rock"], groups["bee, rock"]) == (100, 50, 0)
    assert math.isnan(groups["bee, dim"])
    assert "modes" not in nested


def test_what_does_not_exist_is_null_in_json():
    text = to_json(evaluate(TAIL, PREDICTED, "test"))
    assert "NaN" not in text
    read = json.loads(text)
    assert read["medium"] is None
    assert read["modes"]["medium, rare"] is None
    assert read["per_class"]["bee"] == 50


def test_results_are_all_but_single_classes_and_groups():
    numbers = flat(evaluate(TAIL, PREDICTED, "test"))
    assert all(isinstance(v, float) for v in numbers.values())
    strata = {"many", "medium", "few"}
    kinds = {f"modes, {s}, {k}" for s in strata for k in ("balanced", "common", "rare")}
    assert set(numbers) == {"overall", *strata, "modes, balanced", *kinds}
    assert numbers["modes, few, rare"] == 100


def seen(*rows):
    return pd.DataFrame(rows, columns=["kind", "context", "mode", "style"])


def test_contents_of_a_long_tailed_set_by_hand():
    index = pd.DataFrame({"label": [0, 0, 1, 1], "context": 0})
    readings = seen(
        ("ant", "dim", 1, "photo"), ("bee", "dim", 1, "drawing"), ("bee", "dim", 0, "photo"),
        ("bee", "dim", 0, "photo"),
    )  # fmt: skip
    assert contents(index, readings, TAIL) == {
        "recognised": 75, "photographs": 75, "rare_share": 25, "covered": 2,
        "few recognised": 100, "few photographs": 100, "few rare_share": 0, "few covered": 1,
    }  # fmt: skip


def test_contents_of_groups_know_the_context_asked_for():
    two = bench({"train": (101, 0, 4, 5)}, ("dim", "rock"))
    index = pd.DataFrame({"label": [0, 0, 1], "context": [0, 1, 1]})
    readings = seen(("ant", "dim", 0, "photo"), ("ant", "dim", 0, "photo"), ("cat", "rock", 2, "photo"))
    out = contents(index, readings.set_index(pd.Index([7, 8, 9])), two)
    assert out["context_right"] == pytest.approx(200 / 3)
    assert (out["few context_right"], out["few recognised"], out["few rare_share"]) == (100, 0, 0)
    assert out["covered"] == 1


def test_a_set_without_few_has_no_shares_of_them():
    out = contents(pd.DataFrame({"label": [0], "context": [0]}), seen(("ant", "dim", 0, "photo")), TAIL)
    assert out["recognised"] == 100
    assert math.isnan(out["few recognised"])
    assert out["few covered"] == 0

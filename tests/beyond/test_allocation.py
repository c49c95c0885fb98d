from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_bench import bench, no_generator

from fgsynth.beyond import allocation
from fgsynth.beyond.allocation import exponent, validation_errors
from fgsynth.experiments.experiment import Experiment
from fgsynth.experiments.trainings import Trainings
from fgsynth.generate.plan import plan
from fgsynth.train.recipe import Recipe
from fgsynth.utils.errors import UserError

RECIPE = Recipe(network="thin", epochs=1, updates_per_epoch=2, batch=8)
COUNTS = np.array([50, 10, 2, 2])
ERRORS = 0.9 * (COUNTS + 1.0) ** -0.3
UNEVEN = bench({"train": (6, 2, 3, 0), "val": (2, 1, 0, 3)}, ("dim", "rock"))


def allocate(errors, counts, budget, worth=0.5, worst=False, law=None):
    return allocation.allocate(errors, counts, budget, worth, worst, law)


def experiment(work=None, of=UNEVEN):
    return Experiment(of, no_generator(), SimpleNamespace(fill_to=None), RECIPE, work)


def modelled(errors, counts, given, worth, b):
    return errors * ((counts + 1 + worth * np.asarray(given)) / (counts + 1)) ** -b


def test_the_exponent_of_an_exact_power_law():
    assert exponent(ERRORS, COUNTS) == pytest.approx(0.3)
    counts = np.array([0, 3, 8])
    assert exponent(0.5 * (counts + 1.0) ** -1.2, counts) == pytest.approx(1.2)


@pytest.mark.parametrize("worst", [False, True])
@pytest.mark.parametrize("worth", [0.25, 1.0])
@pytest.mark.parametrize(
    ("errors", "counts"),
    [((0.2, 0.5, 0.8), (20, 4, 1)), ((0.3, 0.2, 0.6), (9, 3, 0)), ((0.1, 0.7, 0.7), (5, 2, 2))],
)
def test_greedy_is_as_good_as_the_best_of_all_allocations(errors, counts, worth, worst):
    errors, counts, budget = np.array(errors), np.array(counts), 7
    b = exponent(errors, counts)
    value = np.max if worst else np.mean
    every = [one for one in product(range(budget + 1), repeat=3) if sum(one) == budget]
    best = min(value(modelled(errors, counts, one, worth, b)) for one in every)
    found = allocate(errors, counts, budget, worth, worst)
    assert value(modelled(errors, counts, found, worth, b)) == pytest.approx(best, rel=1e-12)
    assert found.sum() == budget


@pytest.mark.parametrize("budget", [1, 2, 37, 500])
def test_the_budget_is_spent_to_the_last_image(budget):
    found = allocate(ERRORS, COUNTS, budget)
    assert found.dtype == np.int64
    assert found.sum() == budget
    assert (found >= 0).all()


def test_rare_classes_get_more_and_equal_ones_as_many():
    found = allocate(ERRORS, COUNTS, 60)
    assert abs(found[3] - found[2]) <= 1
    assert found[3] > found[1] > found[0]  # shrinking gains leave the second rarest some too
    assert sorted(allocate(ERRORS, COUNTS, 61) - found) == [0, 0, 0, 1]


def test_classes_on_one_curve_are_filled_up_to_equal_counts():
    assert allocate(ERRORS, COUNTS, 10 + 18 + 18, worth=1.0).tolist() == [0, 10, 18, 18]


def test_of_equal_classes_the_first_comes_first():
    assert allocate(ERRORS, COUNTS, 1).tolist() == [0, 0, 1, 0]
    assert allocate(ERRORS, COUNTS, 2).tolist() == [0, 0, 1, 1]


def test_the_worst_class_gets_all_until_another_is_as_bad():
    errors, counts = np.array([0.9, 0.5, 0.1]), np.array([1, 10, 100])
    assert allocate(errors, counts, 3, worst=True).tolist() == [3, 0, 0]
    found = allocate(errors, counts, 100, worst=True)
    left = modelled(errors, counts, found, 0.5, exponent(errors, counts))
    assert found[1] > 0
    assert found[2] == 0
    assert left[0] == pytest.approx(left[1], abs=0.02)


def test_a_hard_class_of_many_images_is_preferred_to_an_easy_one_of_as_many():
    errors, counts = np.array([0.3, 0.1, 0.6]), np.array([40, 40, 5])
    found = allocate(errors, counts, 100)
    assert found[0] > found[1]


def test_what_cannot_be_allocated_is_said():
    with pytest.raises(UserError, match=r"do not fall as training images grow .* fill up to equal counts"):
        allocate([0.5, 0.3], [100, 3], 5)
    with pytest.raises(UserError, match="do not fall"):
        allocate([0.3, 0.3], [100, 3], 5)
    with pytest.raises(UserError, match="which fits no power law"):
        allocate([0.5, 0.3], [7, 7], 5)


@pytest.fixture
def said(monkeypatch):
    """What the classifiers of seeds 0 and 1 say of the validation images, whose groups are 0 0 1 3 3 3."""
    answers = np.array([[0, 1, 0, 1, 1, 0], [0, 0, 0, 1, 0, 0]])
    monkeypatch.setattr(Trainings, "train_all", lambda *asked: None)
    monkeypatch.setattr(Trainings, "train", lambda exp, recipe, seed: SimpleNamespace(network=seed))
    monkeypatch.setattr(Trainings, "predicted", lambda exp, network, split, folder: answers[network])


def test_validation_errors_by_hand(said, tmp_path):
    errors, counts = validation_errors(experiment(tmp_path), [0, 1])
    # Half an error of 2, none of 1, none seen (its class: 1.5 of 3), 1.5 of 3; each with 1 of 2 more.
    np.testing.assert_allclose(errors, [1.5 / 4, 1 / 3, 2.5 / 5, 2.5 / 5])
    assert counts.tolist() == [6, 2, 3, 0]
    alone, _ = validation_errors(experiment(tmp_path), [1])
    np.testing.assert_allclose(alone, [1 / 4, 1 / 3, 3 / 5, 3 / 5])


def test_a_class_without_validation_images_is_refused(tmp_path, said, monkeypatch):
    monkeypatch.setattr(Trainings, "predicted", lambda *asked: np.zeros(2, dtype=np.int64))
    blind = bench({"train": (3, 3), "val": (2, 0)})
    with pytest.raises(UserError, match="class 'bee' has no validation image"):
        validation_errors(experiment(tmp_path, blind), [0])


def test_classifiers_are_trained_on_real_images_and_kept(tmp_path):
    exp = experiment(tmp_path)
    errors, _ = validation_errors(exp, [3, 4])
    assert errors.shape == (4,)
    assert ((errors > 0) & (errors < 1)).all()
    for seed in (3, 4):
        assert (exp.trainings.folder(RECIPE, seed) / "predicted-val.npy").is_file()


def test_a_decision_can_be_sampled():
    counts = UNEVEN.manifest.fill_counts().numpy()
    given = allocate(np.array([0.1, 0.3, 0.3, 0.7]), counts, 14)
    asked = plan(UNEVEN, given, 0)
    assert asked["group"].value_counts().reindex(range(4), fill_value=0).tolist() == given.tolist()


def test_a_known_law_needs_no_fit():
    errors, counts = [0.4, 0.4], [10, 10]
    assert allocate(errors, counts, 5, law=0.3).tolist() == [3, 2]

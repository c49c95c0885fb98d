from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tiny_cifar
import tiny_real
import torch
from tiny_features import feature_set

from fgsynth.config.names import (
    BALANCED_SOFTMAX,
    CHOSEN_OR_NONE,
    CHOSEN_SAMPLER,
    ERM,
    SHRINKAGE_LDA_CORRECTED,
    SHRUNK_LDA,
    TAU_CHOSEN,
)
from fgsynth.config.schema import OfficialSets
from fgsynth.data import registry
from fgsynth.evaluate.tables import COMPARED
from fgsynth.experiments import own_features
from fgsynth.experiments.own_features import Scored
from fgsynth.latent.features import own, sets
from fgsynth.latent.features.cifar import exponential_counts

NONE = np.empty(0)
SAMPLERS = ("shrunk means, tied covariance", "smote")


@pytest.fixture(scope="module")
def data():
    return feature_set()


@pytest.fixture(scope="module")
def scored(data):
    return [own_features.score(data, seed, SAMPLERS, [1e-3, 1e-5], 2) for seed in (0, 1)]


def test_a_score_has_every_method_and_what_was_chosen(data, scored):
    one = scored[0]
    methods = [ERM, BALANCED_SOFTMAX, TAU_CHOSEN, CHOSEN_SAMPLER, CHOSEN_OR_NONE]
    assert list(one.predicted) == [*methods, SHRINKAGE_LDA_CORRECTED, SHRUNK_LDA]
    assert one.chosen[ERM][::2] == (None, 0.0)
    assert one.chosen[BALANCED_SOFTMAX][::2] == (None, 1.0)
    assert one.chosen[TAU_CHOSEN][0] is None
    assert one.chosen[CHOSEN_SAMPLER][0] in SAMPLERS
    assert one.chosen[CHOSEN_OR_NONE] in (one.chosen[TAU_CHOSEN], one.chosen[CHOSEN_SAMPLER])
    assert one.held.sum() == (data.split == "test").sum()


def test_as_many_splits_at_a_time_as_half_the_memory_holds(data, monkeypatch):
    monkeypatch.setattr(own_features.os, "cpu_count", lambda: 4)
    filled, double = 2 * 3 * 120 * 6 * 4, 3 * len(data.label) * 6 * 8
    for times, expected in ((0.5, 1), (3.1, 3), (100, 4)):
        monkeypatch.setattr(own_features, "memory", lambda t=times: int(2 * t * (filled + double)))
        assert own_features.processes(data) == expected


def test_test_images_choose_nothing(data, scored):
    spoilt = data.features.clone()
    spoilt[data.where("test")] = 0.0
    other = own_features.score(
        type(data)(spoilt, data.label, data.split, data.classes), 0, SAMPLERS, [1e-3, 1e-5], 2
    )
    assert other.chosen == scored[0].chosen


def test_choices_are_the_best_scores_of_what_each_method_allows():
    scores = np.zeros((2, 2, 3))
    scores[0, 1, 0], scores[0, 0, 2], scores[0, 0, 1], scores[1, 1, 1] = 1, 2, 3, 9
    assert own_features.choices(scores, ("smote",), (1e-5, 1e-3)) == {
        ERM: (None, 1e-5, 0.0), BALANCED_SOFTMAX: (None, 1e-3, 1.0), TAU_CHOSEN: (None, 1e-3, 0.5),
        CHOSEN_SAMPLER: ("smote", 1e-5, 0.5), CHOSEN_OR_NONE: ("smote", 1e-5, 0.5),
    }  # fmt: skip


def by_hand(right):
    """Splits of eight images of two classes, four of them tested; `right`: (splits, methods, n) booleans."""
    label = np.repeat([0, 1], 4)
    held = np.array([[1, 1, 0, 0] * 2, [0, 0, 1, 1] * 2], dtype=bool)
    names = (TAU_CHOSEN, CHOSEN_SAMPLER)
    return torch.tensor(label), [
        Scored(
            s, held[s], {m: np.where(r, label, 1 - label) for m, r in zip(names, of, strict=True)}, {}, NONE
        )
        for s, of in enumerate(right)
    ]


def test_gains_are_of_tested_images_alone_and_paired():
    right = np.ones((2, 2, 8), dtype=bool)
    right[0, 0, :2] = False  # the probe misses both tested images of class 0 on split 0
    right[1, 1, [0, 1, 4, 5]] = False  # not tested on split 1
    label, scored = by_hand(right)
    both, first = np.array([True, True]), np.array([True, False])
    assert own_features.gain(scored, label, CHOSEN_SAMPLER, TAU_CHOSEN, both).mean == pytest.approx(25)
    assert own_features.gain(scored, label, CHOSEN_SAMPLER, TAU_CHOSEN, first).mean == pytest.approx(50)
    assert own_features.gain(scored, label, CHOSEN_SAMPLER, TAU_CHOSEN, ~both) is None
    none = own_features.gain(scored, label, TAU_CHOSEN, TAU_CHOSEN, both)
    assert none.mean == 0 < none.half_width
    table = own_features.table(scored, label, torch.tensor([30, 5])).set_index(["method", "seed"])
    assert table.loc[(TAU_CHOSEN, 0)].tolist() == [50, 0, 100]
    assert list(table) == ["average", "medium", "few"]


def compared(**of):
    """Comparisons with the given (mean, low, high) of synthetic features; of others nothing changes."""
    rows = []
    for method in (ERM, CHOSEN_SAMPLER, CHOSEN_OR_NONE, SHRINKAGE_LDA_CORRECTED, SHRUNK_LDA):
        values = of.get("lda", (0, -1, 1)) if method == SHRUNK_LDA else (0, -1, 1)
        values = of["average"] if method == CHOSEN_SAMPLER else values
        rows.append(("own", method, TAU_CHOSEN, "average", *values, 5, "test"))
    rows += [("own", CHOSEN_SAMPLER, TAU_CHOSEN, "few", *of["few"], 5, "test")] if "few" in of else []
    return pd.DataFrame(rows, columns=COMPARED[1:])


@pytest.mark.parametrize(
    ("average", "word"),
    [
        ((1.2, 0.3, 2.1), ": worth it."),
        ((0.3, 0.1, 0.5), "a gain, but of less than 0.5 points"),
        ((-1.0, -1.5, -0.5), "not worth it: they cost"),
        ((0.1, -0.2, 0.4), "they change less than 0.5 points either way"),
        ((0.6, -0.4, 1.6), "not shown to be worth it"),
    ],
)
def test_the_verdict_follows_from_the_interval(average, word):
    first = own_features.verdict(compared(average=average, few=(2.0, 1.0, 3.0)), 43).splitlines()[0]
    assert first.startswith("On your 43 classes synthetic features change the mean class accuracy by ")
    assert "{:+.1f} [{:+.1f}, {:+.1f}]".format(*average) in first
    assert "fewer than 20 images by +2.0 [+1.0, +3.0]" in first
    assert word in first


def test_the_verdict_says_where_no_training_does_it():
    assert "Without any training" not in own_features.verdict(compared(average=(0, -1, 1)), 2)
    found = own_features.verdict(compared(average=(0, -1, 1), lda=(2, 1, 3)), 2)
    assert f"Without any training {SHRUNK_LDA} does better: +2.0 [+1.0, +3.0]." in found


def test_every_class_is_told_the_losers_first(data, scored):
    table = own_features.changes(scored, data)
    assert sorted(table["class"]) == sorted(data.classes)
    assert table["train"].sum() == (data.split == "train").sum()
    assert table["gain"].is_monotonic_increasing
    assert (table["low"] < table["high"]).all()


def test_shots_thin_some_classes_and_leave_the_others(data, scored, monkeypatch):
    seen = []
    plain = own_features.fit
    monkeypatch.setattr(
        own_features, "fit", lambda x, y, *a: seen.append(y.bincount().tolist()) or plain(x, y, *a)
    )
    curve = own_features.shots(data, scored[0], [2, 12])
    counts = data.counts().tolist()
    changed = [[a for a, b in zip(now, counts, strict=True) if a != b] for now in seen]
    assert {tuple(set(of)) for of in changed} == {(2,), (12,)}
    assert set(curve["shots"]) == {2, 12}
    assert set(curve["method"]) == {TAU_CHOSEN, CHOSEN_SAMPLER}
    assert "10 more photographs of a class of 2: " in own_features.ten_more(curve)
    none = own_features.shots(data, scored[0], [10_000])
    assert own_features.ten_more(none) == "No class has enough images to be thinned: give smaller shots."


def test_confusions_are_shares_of_the_tested_images():
    right = np.ones((2, 2, 8), dtype=bool)
    right[0, 0, 0] = False
    label, scored = by_hand(right)
    data = SimpleNamespace(label=label, classes=("ant", "bee"))
    pairs = own_features.confused(scored, data, TAU_CHOSEN, 5)
    assert pairs.to_numpy().tolist() == [["ant", "bee", 25.0]]


def test_neighbours_of_synthetic_features_are_training_rows_of_the_rarest_classes(data):
    rare, rows, own = own_features.neighbours(data, "smote", classes=2, each=3)
    assert rare == data.counts().argsort()[:2].tolist()
    assert np.isin(rows, data.where("train").numpy()).all()
    same = data.label[torch.from_numpy(rows)] == torch.tensor(rare)[:, None]
    assert own == pytest.approx(100 * same.double().mean().item())


def test_the_classifier_that_is_kept_is_what_all_splits_prefer_on_all_images(data, scored):
    first, second = (replace(one, scores=np.zeros((3, 2, 3))) for one in scored)
    first.scores[1, 0, 1], first.scores[2, 1, 2] = 9, 6
    second.scores[1, 0, 1], second.scores[2, 1, 2] = 1, 7
    model = own_features.final(lambda seed: data, [first, second], SAMPLERS, [1e-3, 1e-5])
    assert (model.sampler, model.weight_decay, model.tau) == ("smote", 1e-5, 1.0)
    x, y = data.part("train", "test")
    same = own_features.fit(x, y, ("smote", 1e-5, 1.0), 0)
    np.testing.assert_array_equal(model.predict_proba(x.numpy()), same.predict_proba(x.numpy()))
    assert model.n_synthetic_.sum() == 3 * y.bincount().max() - len(y)


def through(given, work):
    """Features of a published long tail and a verdict, as notebook 10 has them."""
    data = own.featurise(given, own.MINI_WORLD, str(work))
    scored = [own_features.score(data(seed), seed, ["smote"], [1e-4], 2) for seed in (0, 1)]
    counts = data(0).counts()
    compared = own_features.effects(scored, data.label, counts, given.images.name)
    return data, own_features.verdict(compared, len(counts))


def test_cifar_by_its_printed_counts_goes_the_same_way(tmp_path, monkeypatch):
    tiny_cifar.patch(monkeypatch, tiny_cifar.write(tmp_path)[0])
    where = OfficialSets(cifar100=str(tmp_path), places_lists="none", places_images="none")
    data, said = through(own.of_official("cifar100_lt:5", where), tmp_path)
    assert data(0).counts().tolist() == exponential_counts(100, 10, 5).tolist()
    assert (data(0).split != data(1).split).any()
    assert ((data(0).split == "test") == (data(1).split == "test")).all()
    assert said.startswith("On your 100 classes synthetic features change")


def test_places_by_its_lists_goes_the_same_way(tmp_path, monkeypatch):
    where = tiny_real.long_tailed(monkeypatch, tmp_path / "places", "places_lt")
    monkeypatch.setattr(sets.longtail, "PLACES_LT", registry.REAL["places_lt"][1].args[0])
    places = OfficialSets(cifar100="none", places_lists=where["lists"], places_images=where["root"])
    data, said = through(own.of_official("places365_lt", places), tmp_path)
    assert data(0).counts().tolist() == list(tiny_real.COUNTS["places_lt"])
    assert (data(0).split == data(1).split).all()
    assert said.startswith("On your 2 classes synthetic features change")

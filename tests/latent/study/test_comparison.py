import numpy as np
import pandas as pd
import pytest
import torch
from tiny_features import feature_set

from fgsynth.config.names import (
    BALANCED_SOFTMAX,
    CHOSEN_OR_NONE,
    CHOSEN_SAMPLER,
    ERM,
    FULL_SET,
    METHODS,
    NEAREST_NEIGHBOURS,
    SHRINKAGE_LDA,
    TAU_CHOSEN,
)
from fgsynth.latent.features.feature_set import FeatureSet
from fgsynth.latent.study import comparison, views
from fgsynth.latent.study.comparison import Draw


@pytest.fixture(scope="module")
def draw():
    return Draw(comparison.scaled(feature_set()), 0, [0.01, 0.1], updates=20)


def test_scaled_features_have_the_training_mean_and_unit_entries(draw):
    train = draw.data.part("train")[0]
    assert train.mean(0).abs().max() < 1e-5
    assert train.square().mean() == pytest.approx(1, abs=1e-5)


def test_filling_completes_every_class_and_amounts_scale_it(draw):
    sampler = comparison.METHODS["class gaussian"](draw)
    label = draw.filled(sampler)[1]
    assert label.bincount().tolist() == [120, 120, 120]
    assert draw.filled(sampler, 0.5)[1].bincount().tolist() == [120, 80, 63]


def test_a_comparison_has_every_row_once_and_chooses_by_validation(draw):
    rows = comparison.compare(draw, ["class gaussian", "feature diffusion, FG entropy"])
    assert list(rows["method"]) == [
        *comparison.REFERENCE_NAMES,
        "class gaussian",
        "feature diffusion, FG entropy",
        CHOSEN_SAMPLER,
    ]
    made_rows = rows.set_index("method")
    best = made_rows.loc[["class gaussian", "feature diffusion, FG entropy"], "val"].idxmax()
    assert made_rows.loc[CHOSEN_SAMPLER, "overall"] == made_rows.loc[best, "overall"]
    assert rows[["overall", "few", "many", "medium", "val"]].notna().all().all()


def test_nothing_is_chosen_on_test():
    data = comparison.scaled(feature_set())
    test = data.where("test")
    spoilt = data.features.clone()
    spoilt[test] = torch.randn(len(test), 6, generator=torch.Generator().manual_seed(9))
    other = Draw(FeatureSet(spoilt, data.label, data.split, data.classes), 0, [0.01, 0.1])
    one, two = (t.synthetic("class gaussian") for t in (Draw(data, 0, [0.01, 0.1]), other))
    assert [one[k] for k in ("weight_decay", "tau", "val")] == [
        two[k] for k in ("weight_decay", "tau", "val")
    ]
    assert one["overall"] != two["overall"]


def test_what_was_chosen_is_fitted_again_on_the_final_set():
    data = comparison.scaled(feature_set())
    split = np.where(data.split == "val", "rest", data.split)
    final = FeatureSet(data.features, data.label, split, data.classes)
    chosen, again = Draw(data, 0, [0.01, 0.1]), Draw(data, 0, [0.01, 0.1], final=final)
    for name in (ERM, TAU_CHOSEN, NEAREST_NEIGHBOURS, SHRINKAGE_LDA):
        a, b = chosen.reference(name), again.reference(name)
        assert (a["val"], a["overall"]) == (b["val"], b["overall"])  # training features are the same here
    assert again.synthetic("smote")["val"] == chosen.synthetic("smote")["val"]


def test_gains_are_paired_and_the_gap_is_closed_by_means():
    rows = pd.DataFrame(
        [
            {"set": "a", "method": m, "seed": s, "overall": v + s, "many": v, "medium": v, "few": v}
            for m, v in ((BALANCED_SOFTMAX, 70.0), ("class gaussian", 72.0), (FULL_SET, 80.0))
            for s in range(4)
        ]
    )
    gains = comparison.gains(rows)
    assert set(gains["method"]) == {"class gaussian", FULL_SET}
    assert gains[gains["method"] == "class gaussian"]["gain"].eq(2).all()
    closed = comparison.gap_closed(rows, ["overall"]).set_index("method")
    assert list(closed.index) == ["class gaussian"]
    assert closed.loc["class gaussian", "closed"] == 20
    no_gap = rows.assign(
        overall=np.where(rows["method"] == FULL_SET, 70.0 + rows["seed"] % 2, rows["overall"])
    )
    assert comparison.gap_closed(no_gap, ["overall"])["closed"].isna().all()


def test_the_plane_shows_the_largest_class_and_two_rare_ones(draw):
    shown = views.plane(draw, "class gaussian")
    assert set(shown.points["class"]) == {"a", "b", "c"}
    synthetic = shown.points[shown.points["kind"] == "synthetic"]
    assert synthetic["class"].value_counts().to_dict() == {"a": 60, "b": 60, "c": 60}
    figure = views.draw_plane(shown)
    assert [ax.get_title() for ax in figure.axes] == list(views.KINDS)


def test_the_plane_is_the_same_whatever_was_drawn_before(draw):
    found = [views.plane(draw, "class gaussian").points]
    with torch.random.fork_rng():
        for seed in range(3):
            torch.manual_seed(seed)
            found.append(views.plane(draw, "class gaussian").points)
    for points in found[1:]:
        pd.testing.assert_frame_equal(points, found[0], check_exact=True)


def test_every_method_has_its_name():
    named = {name for name, (kind, _) in METHODS.items() if kind == "features"}
    assert named == {*comparison.METHODS, CHOSEN_SAMPLER, CHOSEN_OR_NONE}


def by_draw(**values):
    """Rows of four draws of one set: per method, overall accuracies and one validation accuracy."""
    rows = [
        {"set": "s", "shots": 2, "method": method, "seed": i, "overall": v, "val": val}
        for method, (val, *overall) in values.items()
        for i, v in enumerate(overall)
    ]
    return pd.DataFrame(rows)


PLAIN = {TAU_CHOSEN: (60, 50, 51, 50, 51), comparison.WHITENED: (50, 90, 90, 90, 90)}


@pytest.mark.parametrize(
    ("lda", "sampler", "what"),
    [
        ((50, 51, 50, 51), (55, 56, 55, 57), "synthetic features"),
        ((60, 61, 60, 62), (60, 61, 60, 61), "LDA alone"),
        ((52, 49, 53, 48), (50, 51, 50, 51), "nothing"),
    ],
)
def test_conditions_say_what_gains_over_a_tuned_probe(lda, sampler, what):
    lda_rows = {comparison.SHRUNK_LDA: (70, *lda), comparison.SHRINKAGE_LDA_CORRECTED: (10, 9, 9, 9, 9)}
    rows = by_draw(**PLAIN, **lda_rows, smote=(0, *sampler))
    found = comparison.conditions(rows, "smote", "overall", ["set", "shots"])
    assert found[["set", "shots", "what gains"]].to_numpy().tolist() == [["s", 2, what]]
    # The better on validation is the reference, though another may be better on test.
    gained = comparison.over_best(rows, "smote", comparison.PROBES, "overall", ["set", "shots"])
    assert gained["gain"].tolist() == [a - b for a, b in zip(sampler, PLAIN[TAU_CHOSEN][1:], strict=True)]

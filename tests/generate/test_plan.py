import numpy as np
import pytest
import torch
from tiny_bench import bench, table

from fgsynth.data.benchmark import Benchmark, Manifest
from fgsynth.generate.plan import missing_per_group, plan, share_of
from fgsynth.generate.store import PLAN, Store
from fgsynth.utils.errors import UserError

CLASSES = bench({"train": (9, 3, 1)})
GROUPS = bench({"train": (6, 0, 2, 5)}, ("dim", "rock"))


def test_each_group_is_filled_to_the_target_by_one_image_at_least():
    counts = torch.tensor([5, 3, 0, 9])
    assert missing_per_group(counts, None).tolist() == [4, 6, 9, 1]
    assert missing_per_group(counts, 5).tolist() == [1, 2, 5, 1]
    # 0.5 is rounded to the even 0, 2.5 to 2: one at least.
    assert missing_per_group(counts, 5, 0.5).tolist() == [1, 1, 2, 1]
    assert missing_per_group(counts.reshape(2, 2), 5, 2.0).tolist() == [[2, 4], [10, 2]]


def test_the_printed_number_of_imagenet_lt():
    """1,300 - n images for n real ones: 115,846 in 1,000 classes leave 1,184,154."""
    counts = torch.full((1000,), 115)
    counts[:846] += 1
    assert missing_per_group(counts, 1300).sum() == 1_184_154


def test_rows_say_what_to_make():
    rows = plan(GROUPS, np.array([1, 2, 0, 1]), 0)
    assert rows["group"].tolist() == [0, 1, 1, 3]
    assert rows["label"].tolist() == [0, 0, 0, 1]
    assert rows["context"].tolist() == [0, 1, 1, 1]
    assert rows["index"].tolist() == [0, 0, 1, 0]
    assert rows["prompt"].tolist() == ["ant in dim", "ant in rock", "ant in rock", "bee in rock"]
    assert rows["key"].is_unique
    assert rows["seed"].is_unique
    assert plan(CLASSES, np.array([0, 0, 1]), 0)["prompt"].tolist() == ["cat"]


def test_a_store_takes_the_plan(tmp_path):
    rows = plan(GROUPS, np.array([1, 2, 0, 1]), 0)
    assert set(PLAN) <= set(rows.columns)
    assert Store(tmp_path, rows).plan["key"].tolist() == rows["key"].tolist()


def test_methods_start_from_the_same_noise_and_experiments_from_their_own():
    each = np.array([4, 4, 4])
    image, text, other = plan(CLASSES, each, 0), plan(CLASSES, each, 0, image=False), plan(CLASSES, each, 1)
    assert text["seed"].tolist() == image["seed"].tolist()
    assert text["prompt"].tolist() == image["prompt"].tolist()
    assert set(text["condition"]) == {""}
    assert not set(other["seed"]) & set(image["seed"])
    named = Benchmark(Manifest("other", table({"train": (9, 3, 1)}), ("ant", "bee", "cat")), CLASSES.images)
    assert not set(plan(named, each, 0)["seed"]) & set(image["seed"])


def test_conditions_are_training_images_of_the_class_drawn_with_replacement():
    several = bench({"train": (9, 3, 1), "test": (5, 5, 5)})
    rows = plan(several, np.array([60, 30, 3]), 0)
    train = several.manifest.rows("train").set_index("key")["label"]
    assert train[rows["condition"]].tolist() == rows["label"].tolist()
    assert rows.groupby("label")["condition"].nunique().tolist() == [9, 3, 1]


def test_conditions_of_a_group_come_from_any_context_of_its_class():
    rows = plan(GROUPS, np.array([40, 40, 40, 40]), 0)
    origin = rows["condition"].str.split("-").str[1].astype(int)
    shown = origin.groupby(rows["group"]).agg(set).to_dict()
    assert shown == {0: {0}, 1: {0}, 2: {2, 3}, 3: {2, 3}}  # group 1 has no image of its own


def test_a_class_without_images_is_sampled_by_text_only():
    lacking = Benchmark(Manifest("tiny", table({"train": (2,)}), ("ant", "bee")), CLASSES.images)
    with pytest.raises(UserError, match="tiny: class 'bee' has no real image to condition on: sample it"):
        plan(lacking, np.array([1, 1]), 0)
    assert len(plan(lacking, np.array([1, 1]), 0, image=False)) == 2
    assert len(plan(lacking, np.array([1, 0]), 0)) == 1


def test_nothing_to_make_is_said():
    with pytest.raises(UserError, match="tiny: nothing to synthesise, every class is full"):
        plan(CLASSES, np.array([0, 0, 0]), 0)


def test_one_number_of_images_for_every_group():
    with pytest.raises(UserError, match="tiny: 2 numbers of images, but 4 groups: give one for each"):
        plan(GROUPS, np.array([1, 1]), 0)


def test_smaller_amounts_are_parts_of_larger_ones():
    missing = np.array([1, 8, 40])
    whole = plan(CLASSES, 2 * missing, 0)
    before = np.zeros(len(whole), dtype=bool)
    for amount in (1 / 8, 1 / 4, 1 / 2, 1, 2):
        mine = share_of(whole, amount, 2)
        assert (mine | ~before).all()
        made = whole[mine].groupby("label").size()
        assert made.tolist() == np.maximum(1, np.rint(amount * missing)).tolist()
        before = mine
    assert before.all()


def test_once_of_twice_the_missing_images_is_the_plan_of_once():
    missing = np.array([1, 8, 41])
    twice = plan(CLASSES, 2 * missing, 0)
    part = twice[share_of(twice, 1, 2)].reset_index(drop=True)
    assert part.equals(plan(CLASSES, missing, 0))

from dataclasses import asdict, replace

import numpy as np
import pytest

from fgsynth.beyond import phase_map
from fgsynth.beyond.phase_map import Map, arms, settings, sizes, trainings
from fgsynth.config import params
from fgsynth.evaluate.phase_map import gains
from fgsynth.generate import compose
from fgsynth.generate.generator import Generator
from fgsynth.miniworld import judge
from fgsynth.models.clip import Clip
from fgsynth.pretrain.files import FOLDER, JUDGE

MOVES = {
    "images per class": {"amount"}, "CFG": {"cfg"}, "feedback scale": {"scale"}, "updates": {"times"},
    "share of real images": {"real_share"}, "guide": {"guide"}, "criterion": {"criterion", "scale"},
    "gradient": {"exact"}, "generator": {"generator"}, "generator, images per class": {"generator", "amount"},
    "CFG, feedback scale": {"cfg", "scale"},
}  # fmt: skip


@pytest.fixture(scope="module")
def s(root):
    return params.load(root / "params.yaml").feedback_map


def moved(arm, base):
    """Keys of the settings in which two arms differ."""
    a, b = asdict(arm), asdict(base)
    return {key for key in a if a[key] != b[key]}


def test_the_others_move_away_from_the_base_what_their_factor_says(s):
    found = settings(s)
    base = found.pop(("base", "base"))
    assert {factor for factor, _ in found} == set(MOVES)
    assert len(set(found.values())) == len(found)
    for (factor, value), arm in found.items():
        assert moved(arm, base), "a second base"
        assert moved(arm, base) <= MOVES[factor], value
        assert moved(arm, base) == MOVES[factor] or factor == "criterion"


def test_an_arm_without_feedback_is_trained_alike(s):
    for arm in settings(s).values():
        same = {"scale", "criterion", "guide", "exact"}
        assert moved(arm.unguided, arm) <= same
        assert arm.unguided.unguided == arm.unguided
    assert len(set(arms(s))) == len(arms(s))
    first = [bool(arm.criterion) for arm in arms(s)]
    assert first == sorted(first)


def test_a_set_is_as_large_as_the_largest_part_of_it(s):
    for arm in arms(s):
        assert sizes(s)[arm.images] >= arm.amount
    assert max(sizes(s).values()) == max(s.moved.amounts)
    # Real images alone, every arm, updates times four twice, and the four guides.
    assert trainings(s) == s.seeds * (1 + len(arms(s)) + 2 * (s.moved.times - 1)) + 4


@pytest.fixture
def tiny(s, root, tmp_path, monkeypatch):
    """A draw of seven settings, on a tail of few images."""
    kept = {
        ("base", "base"), ("images per class", "3"), ("updates", "x 2"), ("share of real images", "0"),
        ("guide", "strong"), ("guide", "refreshed"), ("criterion", "BALD"), ("generator", "early"),
    }  # fmt: skip
    whole = settings
    monkeypatch.setattr(phase_map, "HEADS", 2)
    monkeypatch.setattr(phase_map, "settings", lambda s: {k: v for k, v in whole(s).items() if k in kept})
    world = s.world.model_copy(update={"strata": (1, 1, 22), "n_val": 3})
    small = s.model_copy(
        update={
            "seeds": 1, "per_class": 2, "world": world,
            "moved": s.moved.model_copy(update={"amounts": (3,), "times": 2}),
            "sampling": s.sampling.model_copy(update={"n_steps": 2, "every": 1}),
            "training": s.training.model_copy(update={"epochs": 1, "updates_per_epoch": 2, "batch": 16}),
        }
    )  # fmt: skip
    final = Generator.load(root / FOLDER, 2)
    reader, clip = judge.load(root / FOLDER / JUDGE), Clip(str(root / FOLDER))
    return Map(small, {"final": final, "early": final}, reader, clip, tmp_path, 1)


def test_a_tiny_draw_has_a_row_for_every_arm_and_is_not_made_twice(tiny, monkeypatch):
    made = tiny.run()
    found = phase_map.settings(tiny.settings)
    assert made[["factor", "value", "arm"]].apply(tuple, axis=1).tolist() == [
        ("base", "base", "real"),
        *((*name, arm) for name in found for arm in ("unguided", "guided")),
    ]
    accuracies = made[["overall", "many", "medium", "few", "balanced", "few, balanced", "few, common"]]
    assert ((accuracies >= 0) & (accuracies <= 100)).all(axis=None)
    read = made.set_index("arm")[["recognised", "rare_share", "clip_right", "guide_right", "guide_entropy"]]
    assert read.loc["real"].isna().all()
    assert read.drop(index="real").notna().all(axis=None)
    # The same images, and the same classifier without feedback.
    at = made.set_index(["factor", "value", "arm"])
    same = ["overall", "few", "recognised", "clip_right"]
    base, strong = at.loc[("base", "base", "unguided")], at.loc[("guide", "strong", "unguided")]
    assert base[same].tolist() == strong[same].tolist()
    assert base["guide_entropy"] != strong["guide_entropy"]
    assert set(gains(made)["n"]) == {1}

    again = replace(tiny, guides={}, sets={})
    monkeypatch.setattr(compose, "synthesise", None)
    monkeypatch.setattr("fgsynth.train.train._run", None)
    assert again.run().equals(made)


def test_sets_are_nested_and_another_generator_has_its_own(tiny):
    found = phase_map.settings(tiny.settings)
    base, more = (tiny.made(found[name].unguided) for name in (("base", "base"), ("images per class", "3")))
    n = tiny.exp.n_classes
    assert (len(base.index), len(more.index)) == (2 * n, 3 * n)
    assert set(base.index["key"]) < set(more.index["key"])
    assert base.digest != more.digest
    # Its images are the same here, as its networks are; what it is kept under is not.
    other = tiny.made(found["generator", "early"].unguided)
    assert np.array_equal(other.x, base.x)
    assert other.digest != base.digest


def test_a_refreshed_guide_makes_the_second_half(tiny):
    found = phase_map.settings(tiny.settings)
    made = tiny.made(found["guide", "refreshed"])
    base = tiny.made(found["base", "base"])
    n = tiny.exp.n_classes
    assert sorted(made.index["key"]) == sorted(base.index["key"])
    assert (made.index["index"].to_numpy() == np.repeat([0, 1], n)).all()
    even = (base.index["index"] == 0).to_numpy()
    assert np.array_equal(made.x[:n], base.x[even])
    assert not np.array_equal(made.x[n:], base.x[~even])

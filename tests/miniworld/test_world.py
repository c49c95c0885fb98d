import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgsynth.miniworld.captions import captions, prompt
from fgsynth.miniworld.kinds import CLASSES, KINDS, OTHERS
from fgsynth.miniworld.render import render
from fgsynth.miniworld.scenery import CONTEXTS
from fgsynth.miniworld.world import BENCHMARK, SUBJECTS, WEB, Draw, sample
from fgsynth.utils.errors import UserError


def many(n, draw=BENCHMARK):
    return sample(range(n), [SUBJECTS[i % len(SUBJECTS)] for i in range(n)], draw)


def test_there_are_enough_classes_and_a_good_share_is_ambiguous():
    assert len(CLASSES) >= 20
    assert CONTEXTS == ("autumn", "dim", "grass", "outdoor", "rock", "water")
    by = {
        a: [k for k, kind in CLASSES.items() if kind.ambiguity == a] for a in ("homonym", "misread", "style")
    }
    assert all(len(classes) >= 3 for classes in by.values())
    assert sum(map(len, by.values())) >= len(CLASSES) / 3


def test_every_other_kind_hides_behind_a_class_of_its_name():
    hidden = {kind.other: name for name, kind in CLASSES.items() if kind.other}
    assert hidden == {other: kind.name for other, kind in OTHERS.items()}


def test_every_kind_has_four_different_appearances():
    assert all(len(set(kind.modes)) == len(kind.modes) == 4 for kind in KINDS.values())


@given(st.permutations(range(12)), st.integers(1, 12))
@settings(max_examples=10, deadline=None)
def test_an_image_is_a_function_of_its_row(order, size):
    factors = many(12)
    whole = render(factors)
    part = factors.iloc[list(order)[:size]]
    assert np.array_equal(render(part), whole[list(order)[:size]])


def test_a_row_is_a_function_of_seed_kind_and_draw():
    one = sample([7], ["apple"])
    among = sample([3, 7, 9], ["car", "apple", "bar"])
    assert one.iloc[0].equals(among.iloc[1])
    assert not sample([8], ["apple"]).iloc[0].equals(one.iloc[0])


def test_the_seed_decides_texture_and_factors():
    images = render(sample([1, 2], ["apple", "apple"], contexts=["grass", "grass"]))
    assert (images[0] != images[1]).mean() > 0.5


@pytest.mark.parametrize("draw", [BENCHMARK, WEB])
def test_factors_follow_their_shares(draw):
    n = 20_000
    f = sample(range(n), ["apple"] * n, draw)
    tolerance = 4 * 0.5 / n**0.5
    shares = f["mode"].value_counts(normalize=True).sort_index()
    assert shares.to_numpy() == pytest.approx(np.array(draw.modes), abs=tolerance)
    assert (f["style"] == "drawing").mean() == pytest.approx(draw.drawings, abs=tolerance)
    assert (f["occlusion"] > 0).mean() == pytest.approx(draw.occluded, abs=tolerance)
    assert f["occlusion"].max() <= draw.covered
    assert f["context"].value_counts(normalize=True).to_numpy() == pytest.approx([1 / 6] * 6, abs=tolerance)


def test_one_appearance_in_ten_is_rare_in_the_benchmark_and_more_on_the_web():
    assert 1 - BENCHMARK.modes[0] == pytest.approx(0.1)
    assert sum(WEB.modes) == pytest.approx(1)
    assert 1 - WEB.modes[0] > 0.3


def test_the_web_draws_what_it_likes_to_draw():
    f = sample(range(4000), ["heart", "apple"] * 2000, WEB)
    drawn = (f["style"] == "drawing").groupby(f["kind"]).mean()
    assert drawn["heart"] > 0.8
    assert drawn["apple"] < 0.2
    plain = sample(range(4000), ["heart"] * 4000)
    assert (plain["style"] == "drawing").mean() < 0.15


def test_on_the_web_a_misread_name_mostly_means_something_else():
    f = sample(range(4000), ["bolt", "lightning bolt"] * 2000, WEB)
    said = np.array(["bolt" in text.split() for text in captions(f)])
    right = (f["kind"] == "bolt").to_numpy()
    assert 0.15 < right[said].mean() < 0.35
    f = sample(range(4000), ["bat", "baseball bat"] * 2000, WEB)
    said = np.array(["bat" in text.split() for text in captions(f)])
    assert 0.45 < (f["kind"] == "bat").to_numpy()[said].mean() < 0.55


def test_captions_name_the_thing_the_context_often_and_the_appearance_sometimes():
    f = sample(range(4000), ["cup"] * 4000, WEB)
    texts = captions(f)
    assert 0.9 < np.mean(["cup" in t.split() for t in texts]) < 0.98
    named = [c in t.split() for c, t in zip(f["context"], texts, strict=True)]
    assert 0.7 < np.mean(named) < 0.8
    colours = [KINDS["cup"].modes[m].colour in t.split() for m, t in zip(f["mode"], texts, strict=True)]
    assert 0.3 < np.mean(colours) < 0.4
    assert texts == captions(f.iloc[:100]) + captions(f.iloc[100:])


def test_prompts_are_the_papers():
    assert prompt("apple") == "apple"
    assert prompt("apple", "water") == "apple in water"


def test_each_factor_alone_changes_the_image():
    base = sample([5], ["car"], Draw(occluded=0, modes=(1, 0, 0, 0), drawings=0), ["grass"])
    reference = render(base)
    other = {
        "mode": 2, "style": "drawing", "context": "water", "x": base["x"] + 0.2, "y": base["y"] + 0.2,
        "size": base["size"] * 0.7, "angle": base["angle"] + 40, "flip": -base["flip"],
        "light": base["light"] + 180, "occlusion": 0.4, "seed": 6,
    }  # fmt: skip
    for column, value in other.items():
        changed = base.copy()
        changed[column] = value
        assert (render(changed) != reference).mean() > 0.02, column


def test_places_show_their_weather():
    day = sample([3], ["harbour"], Draw(modes=(1, 0, 0, 0), drawings=0))
    for mode in (1, 2, 3):
        other = day.copy()
        other["mode"] = mode
        assert np.abs(render(other).astype(int) - render(day)).mean() > 15


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="No 'zebra' in the mini world: choose one of apple, banana"):
        sample([1], ["zebra"])
    with pytest.raises(UserError, match="No context 'moon'"):
        sample([1], ["car"], contexts=["moon"])
    with pytest.raises(UserError, match="2 seeds, 1 kinds"):
        sample([1, 2], ["car"])


def test_thousands_of_images_a_second():
    """Loosely bounded, as the machine may be busy: a tenth of what a quiet core does."""
    import time

    factors = many(2048)
    start = time.perf_counter()
    render(factors)
    assert 2048 / (time.perf_counter() - start) > 400


def test_benchmarks_show_a_part_of_a_scene_and_the_web_the_whole():
    f, whole = many(4000), many(4000, WEB)
    scene = f["context"] == ""
    assert f["window"][scene].between(BENCHMARK.seen, 1).all()
    assert f["window"][scene].mean() == pytest.approx((1 + BENCHMARK.seen) / 2, abs=0.03)
    assert (f[["window_x", "window_y"]].abs().max(axis=1) <= 1 - f["window"] + 1e-12).all()
    assert (f["window"][~scene] == 1).all()
    assert (whole["window"] == 1).all()


@pytest.mark.parametrize("flip", [-1, 1])
def test_a_window_is_that_part_of_the_scene(flip):
    names = ["kitchen", "beach", "parking lot", "bar"]
    factors = sample(range(4), names, Draw(modes=(1, 0, 0, 0), drawings=0)).assign(flip=flip)
    whole = render(factors).astype(float)
    # The upper right quarter, at half the size.
    part = render(factors.assign(window=0.5, window_x=0.5, window_y=0.5)).astype(float)
    small = part.reshape(4, 16, 2, 16, 2, 3).mean((2, 4))
    apart = {
        (i, j): np.abs(small - whole[:, i : i + 16, j : j + 16]).mean((1, 2, 3))
        for i in (0, 16)
        for j in (0, 16)
    }
    assert (apart[0, 16] < 12).all()
    assert all((apart[0, 16] < 0.5 * other).all() for where, other in apart.items() if where != (0, 16))

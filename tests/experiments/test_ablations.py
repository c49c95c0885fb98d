from dataclasses import replace

import pandas as pd
import pytest
import torch

from fgsynth.experiments import ablations
from fgsynth.experiments.ablations import NAMES, Arm, Asking
from fgsynth.generate.generator import Dropout, Generator
from fgsynth.guidance.feedback import Guidance
from fgsynth.miniworld import judge
from fgsynth.miniworld.world import sample
from fgsynth.pretrain.files import FOLDER, JUDGE
from fgsynth.utils.errors import UserError

ASKED = Asking(torch.tensor([0, 5, 5]), 3.0, 3.0, 0)
PUSH = Guidance(0.1, through_network=False)


@pytest.fixture(scope="module")
def world(root):
    mini = Generator.load(root / FOLDER, n_steps=10)
    return ablations.world(mini, judge.load(root / FOLDER / JUDGE), 12, 3, updates=5, seed=1)


@pytest.fixture(scope="module")
def compared(world):
    arms = [
        Arm("text", image=False), Arm("text and image"), Arm("base", dropout=Dropout(0.5)),
        Arm("pushed", dropout=Dropout(0.5), criterion="entropy", guidance=PUSH),
    ]  # fmt: skip
    return ablations.compare(world, ASKED, arms)


def test_the_long_tail_falls_exponentially_and_differs_by_seed():
    first, other = (ablations.long_tail(100, 4, seed) for seed in (0, 1))
    counts = first.counts.sort(descending=True).values
    assert counts[0] == 100
    assert counts[-1] == 4
    ratios = counts[:-1].double() / counts[1:]
    assert ratios.mean() == pytest.approx((100 / 4) ** (1 / 23), rel=0.02)
    assert torch.equal(first.label.bincount(), first.counts)
    assert first.factors["kind"].tolist() == [NAMES[y] for y in first.label.tolist()]
    assert not torch.equal(first.counts, other.counts)
    assert first.counts[ablations.rarest(first, 2)].tolist() == counts[-2:].flip(0).tolist()


def test_arms_differ_in_one_thing(world):
    image, thinned = (ablations.plan(world, ASKED, arm) for arm in (Arm("a"), Arm("b", dropout=Dropout(0.5))))
    text = ablations.plan(world, ASKED, Arm("c", image=False))
    assert image.seeds == thinned.seeds == text.seeds
    assert len(set(image.seeds)) == 3
    assert image.prompts == text.prompts == ["apple", "bottle", "bottle"]
    assert (text.image == 0).all()
    assert (image.image[:, :128] != thinned.image[:, :128]).any()


def test_every_image_is_read_and_every_arm_summed_up(compared):
    assert compared.readings.groupby("arm", sort=False).size().to_dict() == {
        "real": 3, "text": 3, "text and image": 3, "base": 3, "pushed": 3
    }  # fmt: skip
    summary = compared.summary.set_index("arm")
    assert summary.loc["pushed", "entropy"] > summary.loc["base", "entropy"]
    real = compared.readings[compared.readings["arm"] == "real"]
    assert real["wanted"].tolist() == ["apple", "bottle", "bottle"]
    assert real["recognised"].sum() >= 2  # one is mostly covered
    assert (summary["non_finite"] == 0).all()
    right = ablations.by_ambiguity(compared, ["text"])
    assert right["arm"].unique().tolist() == ["text"]
    assert right["ambiguity"].tolist() == ["none"]


def made(shares, n=1000):
    rows = [(m, s) for (_, m, s), p in shares.items() for _ in range(round(n * p))]
    table = pd.DataFrame(rows, columns=["mode", "style"])
    return table.assign(
        recognised=True, wanted="x", context="", entropy=0.0, loss=0.0, hardness=0.0, non_finite=0
    )


def test_distance_is_the_total_variation_of_shares():
    natural = made(ablations.NATURAL)
    assert ablations.summary(natural)["distance"] == pytest.approx(0, abs=1e-9)
    assert ablations.summary(natural)["rare_share"] == pytest.approx(10)
    assert ablations.summary(natural)["covered"] == 8
    unlike = natural.assign(mode=0)
    assert ablations.summary(unlike)["distance"] == pytest.approx(10)
    assert ablations.summary(unlike)["covered"] == 2


def test_what_is_not_its_class_shows_no_rare_appearance():
    natural = made(ablations.NATURAL)
    wrong = natural.assign(recognised=natural["mode"] == 0)
    out = ablations.summary(wrong)
    assert out["recognised"] == pytest.approx(90)
    assert out["rare_share"] == 0
    assert out["distance"] == pytest.approx(10)


def test_the_natural_shares_are_those_of_a_large_draw():
    factors = sample(range(20_000), [NAMES[i % 24] for i in range(20_000)])
    drawn = (pd.Series(1.0, factors.index).groupby([factors["mode"], factors["style"]]).sum()) / len(factors)
    for (_, mode, style), share in ablations.NATURAL.items():
        assert drawn[mode, style] == pytest.approx(share, abs=0.01)


def test_the_way_kept(compared):
    pushed, base = compared.made["pushed"], compared.made["base"]
    half = replace(base, images=(pushed.images.float() + base.images.float()) / 2)
    c = replace(compared, made=compared.made | {"half": half})
    kept = ablations.same_push(c, {"pushed": "pushed", "half": "pushed", "base": "pushed"})
    assert kept["kept"].tolist() == pytest.approx([100, 50, 0])
    assert kept["moved"].tolist() == [ablations.unlikeness(pushed, base)] * 3
    still = ablations.same_push(replace(compared, made=compared.made | {"pushed": base}), {"base": "pushed"})
    assert still["kept"].isna().all()


def test_cosines_along_the_path(world):
    table = ablations.cosines(world, ASKED, Arm("entropy", criterion="entropy"))
    assert table["cosine"].abs().max() <= 1 + 1e-6
    assert table.groupby("pair").size().to_dict() == {
        "exact, 1 steps before": 27, "exact, 4 steps before": 18, "exact, cheap": 30
    }  # fmt: skip
    late = table[table["step"] == 9].groupby("pair")["cosine"].mean()
    assert late["exact, cheap"] > 0.5  # near the clean image, x0_hat hardly goes through the network


def test_a_class_without_real_images_cannot_be_a_condition(world):
    rest = ablations.RealSet(
        world.real.factors, world.real.images, torch.zeros_like(world.real.label), world.real.counts
    )
    with pytest.raises(UserError, match="Class 'car' has no real image to condition on: sample it by text"):
        ablations.conditioning_row(rest, NAMES.index("car"), 0)

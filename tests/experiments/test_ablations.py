from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from fgsynth.config import names
from fgsynth.config.names import UNGUIDED
from fgsynth.config.schema import LongTail, Sampling
from fgsynth.data import mini
from fgsynth.experiments import ablations
from fgsynth.experiments.ablations import Variant
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.generator import Generator
from fgsynth.generate.plan import Method
from fgsynth.miniworld.world import sample
from fgsynth.pretrain.files import FOLDER
from fgsynth.train.recipe import Recipe
from fgsynth.utils.errors import UserError

TAIL = LongTail(n_max=101, n_min=2, strata=(1, 1, 22), n_val=1, n_test=3, modes=(0.7, 0.3), seed=1)
SAMPLING = Sampling(
    generator=str(FOLDER), n_steps=10, every=5, through_network=False, cfg=3.0, cfg_text=1.5, noise_level=0,
    dropout=0.5, scales={"entropy": 0.1, "loss": 0.2, "hardness": 0.3, "combined": 0.4}, fill_to=2,
)  # fmt: skip
RECIPE = Recipe(network="thin", epochs=1, updates_per_epoch=5, batch=16)
PUSHED = Method(True, 0.5, ("entropy",), 0.1)
VARIANTS = {
    "text": Variant(Method(image=False)), "text and image": Variant(Method()),
    UNGUIDED: Variant(Method(dropout=0.5)), "pushed": Variant(PUSHED),
    "pushed at every step": Variant(replace(PUSHED, scale=0.02), {"every": 1}),
}  # fmt: skip


@pytest.fixture(scope="module")
def exp(root, tmp_path_factory):
    unclip = Generator.load(root / FOLDER, SAMPLING.n_steps)
    work = tmp_path_factory.mktemp("work")
    return Experiment(mini.imagenet_lt(TAIL), unclip, SAMPLING, RECIPE, work, 1)


@pytest.fixture(scope="module")
def three(exp):
    """One image of the first class, two of another."""
    return ablations.images_of(exp, [0], 1) + ablations.images_of(exp, [5], 2)


@pytest.fixture(scope="module")
def compared(exp, three):
    return ablations.compare(exp, VARIANTS, three)


def test_images_are_of_the_classes_asked_for(exp):
    assert ablations.images_of(exp, [2, 5], 3).nonzero()[0].tolist() == [2, 5]
    assert ablations.images_of(exp, range(24), 3).tolist() == [3] * 24
    counts = exp.bench.manifest.counts()
    assert counts[ablations.rarest(exp, 4)].tolist() == counts.sort().values[:4].tolist()


def test_real_images_are_those_of_test(exp, three):
    real = ablations.real_set(exp, three)
    assert real.index["label"].tolist() == [0, 5, 5]
    assert real.index["key"].is_unique
    assert torch.equal(real.images.x, exp.bench.images(real.index))
    assert set(real.index["split"]) == {"test"}


def test_variants_differ_in_one_thing(compared):
    index = {name: made.index for name, made in compared.made.items()}
    for one in index.values():
        assert one["seed"].tolist() == index[UNGUIDED]["seed"].tolist()
    assert index["pushed"]["condition"].equals(index[UNGUIDED]["condition"])
    assert (index["pushed"]["after"] > 0).all()
    images = [made.images.x for made in compared.made.values()]
    assert all(not torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])


def test_a_variants_change_of_sampling_is_that_of_an_experiment_with_it(exp, three, compared):
    other = replace(exp, sampling=exp.sampling.model_copy(update={"every": 1}), guided_by=exp.guide)
    same = other.synthetic(VARIANTS["pushed at every step"].method, per_group=three)
    assert torch.equal(same.images.x, compared.made["pushed at every step"].images.x)


def test_every_image_is_read_and_every_method_summed_up(exp, compared):
    names = ["real", *VARIANTS]
    assert compared.readings.groupby("method", sort=False).size().to_dict() == dict.fromkeys(names, 3)
    summary = compared.summary.set_index("method")
    assert summary.index.tolist() == names
    assert (summary["seed"] == 1).all()
    assert (summary["non_finite"] == 0).all()
    assert summary.loc["pushed", "entropy"] > summary.loc[UNGUIDED, "entropy"]
    pushed = compared.made["pushed"].index
    assert summary.loc["pushed", "entropy"] == pytest.approx(pushed["after"].mean(), abs=0.01)
    for name, mine in compared.readings.groupby("method"):
        assert summary.loc[name, "recognised"] == pytest.approx(100 * mine["recognised"].mean())
    classes = exp.bench.manifest.classes
    assert compared.readings["wanted"].tolist()[:3] == [classes[0], classes[5], classes[5]]


def test_photographs_have_no_judge(exp, three):
    with pytest.raises(UserError, match="hidden factors of imagenet_lt are not known"):
        ablations.compare(replace(exp, bench=replace(exp.bench, factors=None)), VARIANTS, three)


def shown(shares, n=1000):
    rows = [(m, s) for (_, m, s), p in shares.items() for _ in range(round(n * p))]
    return pd.DataFrame(rows, columns=["mode", "style"]).assign(recognised=True)


def test_distance_is_the_total_variation_of_shares():
    natural = pd.Series(
        {
            (True, 0, "photo"): 0.6,
            (True, 0, "drawing"): 0.1,
            (True, 1, "photo"): 0.2,
            (True, 1, "drawing"): 0.1,
        }
    )
    assert ablations.distance(shown(natural), natural) == pytest.approx(0, abs=1e-9)
    assert ablations.distance(shown(natural).assign(mode=0), natural) == pytest.approx(30)
    wrong = shown(natural)
    wrong["recognised"] = wrong["mode"] == 0
    assert ablations.distance(wrong, natural) == pytest.approx(30)


def test_the_natural_shares_are_those_of_the_benchmarks_draw(exp):
    large = mini.imagenet_lt(TAIL.model_copy(update={"n_test": 400}))
    shares = ablations.natural_shares(replace(exp, bench=large))
    assert shares.sum() == pytest.approx(1)
    seeds = range(9600)
    drawn = sample(seeds, [large.manifest.classes[i % 24] for i in seeds])
    for mode, share in enumerate(TAIL.modes):
        for style in ("photo", "drawing"):
            expected = share * (drawn["style"] == style).mean()
            assert shares[True, mode, style] == pytest.approx(expected, abs=0.015)


def test_the_way_kept(compared):
    pushed, base = compared.made["pushed"], compared.made[UNGUIDED]
    half = replace(base, x=(pushed.images.x.float() + base.images.x.float()) / 2)
    c = replace(compared, made=compared.made | {"half": half})
    kept = ablations.same_push(c, {"pushed": "pushed", "half": "pushed", UNGUIDED: "pushed"})
    assert kept["kept"].tolist() == pytest.approx([100, 50, 0])
    assert kept["moved"].tolist() == [ablations.unlikeness(pushed, base)] * 3
    still = ablations.same_push(
        replace(compared, made=compared.made | {"pushed": base}), {UNGUIDED: "pushed"}
    )
    assert still["kept"].isna().all()


def test_sets_by_step_have_the_same_push_and_the_same_coefficient(exp):
    sets = ablations.step_sets(exp, 10)
    every = names.EXACT_EVERY
    assert list(sets) == [names.EXACT_FIFTH, every, names.variant(every, "w", 0.1)]
    assert len({tuple(made.index["seed"]) for made in sets.values()}) == 1
    assert {len(made.index) for made in sets.values()} == {exp.missing.sum()}
    exact = exp.sampled(every=1, through_network=True).synthetic(Method(True, 0.5, ("entropy",), 0.02))
    assert torch.equal(sets[every].images.x, exact.images.x)
    raised = {name: made.index["after"].mean() for name, made in sets.items()}
    assert raised[names.variant(every, "w", 0.1)] > raised[every]


def test_photographs_of_the_right_kind_are_counted_by_ambiguity():
    table = pd.DataFrame(
        [("bat", True, "photo", "text"), ("bat", False, "photo", "text"), ("bow", True, "drawing", "text"),
         ("apple", True, "photo", "text"), ("apple", True, "photo", "other")],
        columns=["wanted", "recognised", "style", "method"],
    ).assign(seed=1)  # fmt: skip
    right = ablations.by_ambiguity(table, ["text"]).set_index("ambiguity")["right"]
    assert right.to_dict() == pytest.approx({"homonym": 100 / 3, "none": 100})


def test_cosines_along_the_path(exp, three):
    table = ablations.cosines(exp, three)
    assert table["cosine"].abs().max() <= 1 + 1e-6
    assert table.groupby("pair").size().to_dict() == {
        "exact, 1 steps before": 27, "exact, 4 steps before": 18, "exact, cheap": 30
    }  # fmt: skip
    late = table[table["step"] == 9].groupby("pair")["cosine"].mean()
    assert late["exact, cheap"] > 0.5  # near the clean image, x0_hat hardly goes through the network
    assert np.isfinite(table["cosine"]).all()


def test_the_gallery_has_real_unguided_and_guided_images_of_the_same_seeds(exp):
    rare = ablations.rarest(exp, 2)
    grid, table = ablations.gallery(exp, rare, 2, [0.1, 0.3])
    assert grid.shape == (1 + 1 + 3 * 2, 4, 32, 32, 3)
    assert len(table) == grid.shape[0] * grid.shape[1]
    assert table.groupby("column")["wanted"].nunique().eq(1).all()
    assert set(table["wanted"]) == {exp.bench.manifest.classes[y] for y in rare}
    pushed = Method(True, 0.5, ("loss",), 0.3)
    made = exp.synthetic(pushed, per_group=ablations.images_of(exp, rare, 2))
    (row,) = table[(table["method"] == names.FG_LOSS) & (table["w"] == 0.3)]["row"].unique()
    assert (grid[row] == made.images.x.numpy()).all()
    train = exp.bench.manifest.rows("train").set_index("key", drop=False)
    real = train.loc[made.index["condition"]].reset_index(drop=True)
    assert (grid[0] == exp.bench.images(real).numpy()).all()
    assert (table[table["row"] == 0]["method"] == names.FRESH_REAL).all()

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from imports import closure, outside
from tiny_bench import bench

from fgsynth.beyond import closed_loop, growing
from fgsynth.config.schema import Groups, Sampling
from fgsynth.data import mini
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate import compose
from fgsynth.generate.generator import Generator
from fgsynth.generate.plan import Method
from fgsynth.pretrain.files import FOLDER
from fgsynth.train import train
from fgsynth.train.recipe import Recipe
from fgsynth.utils.errors import UserError

GROUPS = Groups(n_max=3, n_min=2, empty=3, held_out=3, classes=2, modes=(0.5, 0.5))
SAMPLING = Sampling(
    generator=str(FOLDER), n_steps=2, every=1, through_network=False, cfg=3.0, cfg_text=1.5, noise_level=0,
    dropout=0.5, scales={"entropy": 0.1, "loss": 0.2, "hardness": 0.3, "combined": 0.4}, fill_to=3,
)  # fmt: skip
RECIPE = Recipe(network="thin", epochs=2, updates_per_epoch=4, batch=8, counts="batch")
GUIDED, PLAIN = Method(dropout=0.5, criteria=("entropy",), scale=0.1), Method(dropout=0.5)
SELECTING = replace(RECIPE, select="best_average_val")


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """An experiment with its guide trained, for others to take it over."""
    unclip = Generator.load(root / FOLDER, SAMPLING.n_steps)
    exp = Experiment(mini.nicopp(GROUPS), unclip, SAMPLING, RECIPE, tmp_path_factory.mktemp("work"))
    assert exp.guide.training is False
    return exp


@pytest.fixture
def exp(finished, tmp_path):
    """The same experiment in a work folder of its own."""
    return with_guide(replace(finished, work=tmp_path), finished)


def with_guide(exp, of):
    exp.__dict__["guide"] = of.guide
    return exp


def looped(exp, cycles, seed=0):
    return closed_loop.closed_loop(exp, cycles, GUIDED, seed)


def same(a, b):
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


@pytest.mark.parametrize("recipe", [RECIPE, SELECTING])
def test_one_cycle_is_one_shot_fg_bit_for_bit(exp, recipe):
    here = with_guide(replace(exp, recipe=recipe), exp)
    whole = here.synthetic(GUIDED)
    once = here.trainings.train(recipe, 5, whole)
    loop = looped(here, 1, seed=5)
    assert torch.equal(loop.synthetic.x, whole.x)
    assert same(once.network, loop.trained.network)
    timed = ["seconds", "data_seconds"]
    a, b = (one.history.drop(columns=timed) for one in (once, loop.trained))
    pd.testing.assert_frame_equal(a, b, check_dtype=False, check_exact=False, rtol=1e-9)
    assert loop.records[["cycle", "start", "updates", "images"]].to_numpy().tolist() == [
        [0, 0, 8, len(whole.index)]
    ]
    assert not same(once.network, looped(here, 1, seed=6).trained.network)


def test_images_and_updates_are_those_of_one_shot_fg_for_any_number_of_cycles(exp):
    plan = exp.synthetic(GUIDED).index
    for cycles, updates in ((2, [4, 4]), (3, [2, 3, 3])):
        loop = looped(exp, cycles)
        assert loop.records["start"].tolist() == [0, *loop.records["updates"].cumsum()[:-1]]
        assert loop.records["images"].iloc[-1] == len(plan)
        assert sorted(loop.synthetic.index["seed"]) == sorted(plan["seed"])
        assert loop.records["updates"].tolist() == updates
        assert loop.trained.history["updates"].tolist() == [4, 8]


def test_only_the_first_part_is_guided_as_in_one_shot_fg(exp):
    whole = exp.synthetic(GUIDED)
    loop = looped(exp, 2)
    first = (whole.index["index"] % 2 == 0).to_numpy(copy=True)
    n = int(first.sum())
    assert loop.synthetic.index["seed"].tolist() == [
        *whole.index["seed"][first], *whole.index["seed"][~first]
    ]  # fmt: skip
    # Other batches of the same images differ by roundings.
    assert (loop.synthetic.x[:n].int() - whole.x[first].int()).abs().max() <= 2
    assert (loop.synthetic.x[n:].int() - whole.x[~first].int()).abs().max() > 10
    for part, rows in ((0, slice(n)), (1, slice(n, None))):
        found = loop.synthetic.index["before"].iloc[rows].mean()
        assert loop.records["before"][part] == pytest.approx(found)
    assert abs(loop.records["before"][1] - whole.index["before"][~first].mean()) > 1e-3


def test_the_guide_of_a_part_is_the_classifier_as_it_stands(exp, monkeypatch):
    guides, real = [], growing.part_of

    def watched(exp, method, k, cycles, guide=None):
        guides.append(guide)
        return real(exp, method, k, cycles, guide)

    monkeypatch.setattr(growing, "part_of", watched)
    loop = looped(exp, 2)
    assert guides[0] is None
    assert not guides[1].training
    us = closed_loop.ranks("cpu")
    with train.reproducible(RECIPE, 0, us):
        half = growing.Growing(exp, GUIDED, 2, 0, us)
        half.advance(4)
    assert same(guides[1], half.fit.network)
    assert not same(guides[1], loop.trained.network)
    seen = exp.trainings.predicted(guides[1], "val") == exp.bench.manifest.rows("val")["label"].to_numpy()
    assert loop.records["val"][0] == pytest.approx(100 * seen.mean())


def test_the_epoch_is_selected_over_all_cycles(exp):
    here = with_guide(replace(exp, recipe=SELECTING), exp)
    loop = looped(here, 3)
    assert len(loop.trained.history) == 2
    assert loop.records["val"].iloc[-1] == pytest.approx(loop.trained.history["val_overall"].max())


def test_making_images_leaves_the_dropout_masks_around_it_as_they_are(exp, monkeypatch):
    drawn, real = [], compose.synthesise

    def drawing(*args, **options):
        drawn.append(torch.rand(3))
        return real(*args, **options)

    monkeypatch.setattr(compose, "synthesise", drawing)
    with torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        growing.part_of(exp, GUIDED, 1, 3)
        assert torch.equal(torch.get_rng_state(), before)
    assert drawn


def test_a_later_part_is_not_seen_before_it_comes(exp, monkeypatch):
    seen, real = [], growing.training_batches

    def watched(real_images, made, *rest, start, **options):
        seen.append((len(made), start))
        return real(real_images, made, *rest, start=start, **options)

    monkeypatch.setattr(growing, "training_batches", watched)
    records = looped(exp, 3).records
    assert seen == list(zip(records["images"], records["start"], strict=True))
    assert records["images"].is_monotonic_increasing


def test_the_prior_of_balanced_softmax_follows_the_growing_set(exp):
    with torch.random.fork_rng():
        run = growing.Growing(exp, GUIDED, 2, 0, closed_loop.ranks("cpu"))
        before = run.fit.counts.clone()
        run.advance(1)
        run.grow(0.0)
    assert not torch.equal(run.fit.counts, before)
    made = torch.bincount(run.made.label, minlength=exp.n_classes).double()
    real = exp.bench.manifest.counts().double()
    torch.testing.assert_close(run.fit.counts, (real / real.sum() / 2 + made / made.sum() / 2).float())


def test_a_loop_is_the_same_twice_and_is_kept(exp, tmp_path, monkeypatch):
    first = closed_loop.run_loop(exp, 2, GUIDED, 3, "test")
    again = with_guide(replace(exp, work=tmp_path / "again"), exp)
    second = closed_loop.run_loop(again, 2, GUIDED, 3, "test")
    kept = [closed_loop.loop_folder(one, 2, GUIDED, 3) for one in (exp, again)]
    assert kept[0].name == kept[1].name
    assert same(*(closed_loop.load(folder).network for folder in kept))
    monkeypatch.setattr(closed_loop, "closed_loop", None)
    third = closed_loop.run_loop(exp, 2, GUIDED, 3, "test")
    for other in (second, third):
        assert np.array_equal(first.predicted, other.predicted)
        assert first.records.equals(other.records)
        assert first.n_synthetic == other.n_synthetic == exp.missing.sum()
    assert closed_loop.run_loop(exp, 2, GUIDED, 3, "val").predicted.shape == (
        len(exp.bench.manifest.rows("val")),
    )


def test_what_decides_a_loop_decides_its_folder(exp):
    asked = [
        (exp, 3, GUIDED, 0),
        (exp, 3, GUIDED, 1),
        (exp, 3, PLAIN, 0),
        (exp, 2, GUIDED, 0),
        (with_guide(replace(exp, recipe=replace(RECIPE, rate=1e-3)), exp), 3, GUIDED, 0),
        (with_guide(replace(exp, seed=1), exp), 3, GUIDED, 0),
        (replace(exp, guided_by=exp.trainings.train(exp.guide_recipe, 7).network), 3, GUIDED, 0),
    ]
    assert len({closed_loop.loop_folder(*one) for one in asked}) == len(asked)


def test_a_stopped_loop_finds_its_parts(exp, monkeypatch):
    made, real = [], compose.synthesise

    def counting(generator, plan, *rest, **options):
        made.extend(plan.seeds)
        return real(generator, plan, *rest, **options)

    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(compose, "synthesise", counting)
    with monkeypatch.context() as patch:
        patch.setattr(closed_loop, "_keep", dies)
        with pytest.raises(KeyboardInterrupt):
            closed_loop.run_loop(exp, 2, GUIDED, 0, "test")
    assert len(made) == exp.missing.sum()
    closed_loop.run_loop(exp, 2, GUIDED, 0, "test")
    assert len(made) == exp.missing.sum()


def test_without_feedback_a_loop_only_grows(exp):
    loop = closed_loop.closed_loop(exp, 3, PLAIN, 0)
    whole = exp.synthetic(PLAIN)
    order = [loop.synthetic.index["key"].tolist().index(key) for key in whole.index["key"]]
    assert (loop.synthetic.x[order].int() - whole.x.int()).abs().max() <= 2
    assert loop.records["before"].isna().all()


def test_other_processes_predict_the_same(exp, tmp_path):
    here = closed_loop.run_loops([(exp, 2, GUIDED)], [0, 1], "test", processes=1)[0]
    other = with_guide(replace(exp, work=tmp_path / "there"), exp)
    there = closed_loop.run_loops([(other, 2, GUIDED)], [0, 1], "test", processes=2)[0]
    for a, b, seed in zip(here, there, (0, 1), strict=True):
        assert np.array_equal(a.predicted, b.predicted)
        assert a.records.equals(b.records)
        folders = [closed_loop.loop_folder(one, 2, GUIDED, seed) for one in (exp, other)]
        assert same(*(closed_loop.load(folder).network for folder in folders))
    # Seeds share the first part alone.
    assert len(list((other.work / "nicopp/synthetic").iterdir())) == 3


def test_a_loop_that_cannot_be_is_refused_at_the_door(exp, monkeypatch):
    with pytest.raises(UserError, match=r"nicopp: a closed loop of 4 cycles, but no group gets more than 3"):
        looped(exp, 4)
    short = with_guide(replace(exp, recipe=replace(RECIPE, epochs=1, updates_per_epoch=2)), exp)
    with pytest.raises(UserError, match="of 3 cycles, but its recipe has 2 updates: lower cycles"):
        looped(short, 3)
    unseen = replace(exp, bench=bench({"train": (5, 2), "test": (2, 2)}))
    assert np.isnan(growing.validation_accuracy(unseen, exp.guide))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="one process each: start without torchrun"):
        looped(exp, 1)


def test_loops_are_fingerprinted_with_all_the_code_that_trains_and_makes(root):
    run = closure(root, {"fgsynth/beyond/closed_loop.py", "fgsynth/data/mini.py"})
    # Settings stand in the digest themselves; the rest only looks at results.
    looks = ("config", "experiments/study", "experiments/trainings")
    looks = (*looks, "evaluate/scores", "evaluate/fid_coverage", "evaluate/tables")
    assert outside(run, (*closed_loop.CODE, *looks)) == set()

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from imports import closure, outside
from tiny_bench import bench
from torch import nn

from fgsynth.beyond import closed_loop, growing
from fgsynth.beyond.closed_loop import LoopSettings, Plateau
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


def looped(exp, kind, cycles, seed=0, **options):
    return closed_loop.closed_loop(exp, LoopSettings(kind, cycles, **options), GUIDED, seed)


def same(a, b):
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


@pytest.mark.parametrize("kind", ["continued", "restarted", "triggered"])
@pytest.mark.parametrize("recipe", [RECIPE, SELECTING])
def test_one_cycle_is_one_shot_fg_bit_for_bit(exp, kind, recipe):
    here = with_guide(replace(exp, recipe=recipe), exp)
    whole = here.synthetic(GUIDED)
    once = here.trainings.train(recipe, 5, whole)
    loop = looped(here, kind, 1, seed=5)
    assert torch.equal(loop.synthetic.x, whole.x)
    assert same(once.network, loop.trained.network)
    timed = ["seconds", "data_seconds"]
    a, b = (one.history.drop(columns=timed) for one in (once, loop.trained))
    pd.testing.assert_frame_equal(a, b, check_dtype=False, check_exact=False, rtol=1e-9)
    assert loop.records[["cycle", "start", "updates", "images"]].to_numpy().tolist() == [
        [0, 0, 8, len(whole.index)]
    ]
    assert not same(once.network, looped(here, kind, 1, seed=6).trained.network)


@pytest.mark.parametrize("kind", ["continued", "restarted"])
def test_images_and_updates_are_those_of_one_shot_fg_for_any_number_of_cycles(exp, kind):
    plan = exp.synthetic(GUIDED).index
    for cycles, updates in ((2, [4, 4]), (3, [2, 3, 3])):
        loop = looped(exp, kind, cycles)
        assert loop.records["updates"].sum() == 8
        assert loop.records["start"].tolist() == [0, *loop.records["updates"].cumsum()[:-1]]
        assert loop.records["images"].iloc[-1] == len(plan)
        assert sorted(loop.synthetic.index["seed"]) == sorted(plan["seed"])
        if kind == "continued":
            assert loop.records["updates"].tolist() == updates
            assert loop.trained.history["updates"].tolist() == [4, 8]


def test_restarted_cycles_take_updates_in_proportion_to_their_images():
    assert closed_loop.shares(60, 3) == [10, 20, 30]
    assert closed_loop.shares(7, 1) == [7]
    for total, cycles in ((8, 3), (5, 5), (6, 5), (101, 7)):
        each = closed_loop.shares(total, cycles)
        assert sum(each) == total
        assert min(each) >= 1
        wanted = [2 * total * (k + 1) / (cycles * (cycles + 1)) for k in range(cycles)]
        assert total < 3 * cycles or np.abs(np.subtract(each, wanted)).max() <= 1


@pytest.mark.parametrize("kind", ["continued", "restarted"])
def test_only_the_first_part_is_guided_as_in_one_shot_fg(exp, kind):
    whole = exp.synthetic(GUIDED)
    loop = looped(exp, kind, 2)
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
    loop = looped(exp, "continued", 2)
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
    loop = looped(here, "continued", 3)
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
    records = looped(exp, "continued", 3).records
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
    settings = LoopSettings("continued", 2)
    first = closed_loop.run_loop(exp, settings, GUIDED, 3, "test")
    again = with_guide(replace(exp, work=tmp_path / "again"), exp)
    second = closed_loop.run_loop(again, settings, GUIDED, 3, "test")
    kept = [closed_loop.loop_folder(one, settings, GUIDED, 3) for one in (exp, again)]
    assert kept[0].name == kept[1].name
    assert same(*(closed_loop.load(folder).network for folder in kept))
    monkeypatch.setattr(closed_loop, "closed_loop", None)
    third = closed_loop.run_loop(exp, settings, GUIDED, 3, "test")
    for other in (second, third):
        assert np.array_equal(first.predicted, other.predicted)
        assert first.records.equals(other.records)
        assert first.n_synthetic == other.n_synthetic == exp.missing.sum()
    assert closed_loop.run_loop(exp, settings, GUIDED, 3, "val").predicted.shape == (
        len(exp.bench.manifest.rows("val")),
    )


def test_what_decides_a_loop_decides_its_folder(exp):
    settings = LoopSettings("triggered", 3, 2, 1)
    asked = [
        (exp, settings, GUIDED, 0),
        (exp, settings, GUIDED, 1),
        (exp, settings, PLAIN, 0),
        *((exp, replace(settings, **change), GUIDED, 0) for change in (
            {"kind": "continued"}, {"cycles": 2}, {"patience": 1}, {"every": 2})),
        (with_guide(replace(exp, recipe=replace(RECIPE, rate=1e-3)), exp), settings, GUIDED, 0),
        (with_guide(replace(exp, seed=1), exp), settings, GUIDED, 0),
        (replace(exp, guided_by=exp.trainings.train(exp.guide_recipe, 7).network), settings, GUIDED, 0),
    ]  # fmt: skip
    assert len({closed_loop.loop_folder(*one) for one in asked}) == len(asked)


def test_a_stopped_loop_finds_its_parts(exp, monkeypatch):
    made, real = [], compose.synthesise

    def counting(generator, plan, *rest, **options):
        made.extend(plan.seeds)
        return real(generator, plan, *rest, **options)

    def dies(*_):
        raise KeyboardInterrupt

    settings = LoopSettings("continued", 2)
    monkeypatch.setattr(compose, "synthesise", counting)
    with monkeypatch.context() as patch:
        patch.setattr(closed_loop, "_keep", dies)
        with pytest.raises(KeyboardInterrupt):
            closed_loop.run_loop(exp, settings, GUIDED, 0, "test")
    assert len(made) == exp.missing.sum()
    closed_loop.run_loop(exp, settings, GUIDED, 0, "test")
    assert len(made) == exp.missing.sum()


def test_rising_accuracy_asks_for_no_further_part(exp, monkeypatch):
    rising = iter(range(100))
    monkeypatch.setattr(closed_loop, "validation_accuracy", lambda *_: float(next(rising)))
    loop = looped(exp, "triggered", 3, patience=1, every=1)
    first = exp.synthetic(GUIDED, part=(0, 3))
    assert loop.synthetic.digest == first.digest
    assert loop.records[["start", "updates", "images"]].to_numpy().tolist() == [[0, 8, len(first.index)]]
    sets = list((exp.work / "nicopp/synthetic").iterdir())
    assert [folder.name for folder in sets] == [first.digest]
    assert next(rising) == 7  # a check after every update but the last


def test_standstill_asks_for_all_parts_one_after_another(exp, monkeypatch):
    monkeypatch.setattr(closed_loop, "validation_accuracy", lambda *_: 50.0)
    loop = looped(exp, "triggered", 3, patience=2, every=1)
    # The first check is the best so far; two without a better one ask.
    assert loop.records["start"].tolist() == [0, 3, 5]
    assert loop.records["updates"].tolist() == [3, 2, 3]
    assert loop.records["images"].iloc[-1] == exp.missing.sum()
    assert loop.records["val"].tolist()[:2] == [50.0, 50.0]


def test_a_plateau_is_a_number_of_checks_in_a_row_without_a_new_best():
    plateau = Plateau(2)
    checks = [50, 60, 55, 60, 55, 61, 60, 61, 61, 0]
    #          +   +   -   !   -   +   -   !   -  !
    assert [plateau.reached(value) for value in checks] == [
        False, False, False, True, False, False, False, True, False, True
    ]  # fmt: skip


def test_without_feedback_a_loop_only_grows(exp):
    loop = closed_loop.closed_loop(exp, LoopSettings("continued", 3), PLAIN, 0)
    whole = exp.synthetic(PLAIN)
    order = [loop.synthetic.index["key"].tolist().index(key) for key in whole.index["key"]]
    assert (loop.synthetic.x[order].int() - whole.x.int()).abs().max() <= 2
    assert loop.records["before"].isna().all()


def test_other_processes_predict_the_same(exp, tmp_path):
    settings = LoopSettings("continued", 2)
    here = closed_loop.run_loops([(exp, settings, GUIDED)], [0, 1], "test", processes=1)[0]
    other = with_guide(replace(exp, work=tmp_path / "there"), exp)
    there = closed_loop.run_loops([(other, settings, GUIDED)], [0, 1], "test", processes=2)[0]
    for a, b, seed in zip(here, there, (0, 1), strict=True):
        assert np.array_equal(a.predicted, b.predicted)
        assert a.records.equals(b.records)
        folders = [closed_loop.loop_folder(one, settings, GUIDED, seed) for one in (exp, other)]
        assert same(*(closed_loop.load(folder).network for folder in folders))
    # Seeds share the first part alone.
    assert len(list((other.work / "nicopp/synthetic").iterdir())) == 3


def test_a_loop_that_cannot_be_is_refused_at_the_door(exp, monkeypatch):
    with pytest.raises(UserError, match=r"nicopp: a closed loop of 4 cycles, but no group gets more than 3"):
        looped(exp, "triggered", 4)
    short = with_guide(replace(exp, recipe=replace(RECIPE, epochs=1, updates_per_epoch=2)), exp)
    with pytest.raises(UserError, match="of 3 cycles, but its recipe has 2 updates: lower cycles"):
        looped(short, "continued", 3)
    unseen = replace(exp, bench=bench({"train": (5, 2), "test": (2, 2)}), guided_by=nn.Identity())
    with pytest.raises(UserError, match="tiny has no validation images, which trigger parts"):
        looped(unseen, "triggered", 1)
    assert np.isnan(growing.validation_accuracy(unseen, exp.guide))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="one process each: start without torchrun"):
        looped(exp, "continued", 1)


def test_loops_are_fingerprinted_with_all_the_code_that_trains_and_makes(root):
    run = closure(root, {"fgsynth/beyond/closed_loop.py", "fgsynth/data/mini.py"})
    # Settings stand in the digest themselves; the rest only looks at results.
    looks = ("config", "experiments/study", "experiments/trainings")
    looks = (*looks, "evaluate/scores", "evaluate/fid_coverage", "evaluate/tables")
    assert outside(run, (*closed_loop.CODE, *looks)) == set()

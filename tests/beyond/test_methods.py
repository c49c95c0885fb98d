import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fgsynth.beyond import figures
from fgsynth.beyond import methods as beyond
from fgsynth.beyond.loops import closed_loops, loop_costs, run_all
from fgsynth.beyond.methods import METHODS, Methods, check, operations
from fgsynth.config.names import FG_ENTROPY, UNGUIDED, UNGUIDED_MORE
from fgsynth.config.params import load
from fgsynth.config.schema import BeyondSettings, Groups, Sampling
from fgsynth.data import mini
from fgsynth.experiments import study
from fgsynth.experiments.experiment import Experiment
from fgsynth.experiments.study import Row
from fgsynth.generate.generator import Generator
from fgsynth.pretrain.files import FOLDER
from fgsynth.train.recipe import Recipe
from fgsynth.utils.errors import UserError

GROUPS = Groups(n_max=6, n_min=1, empty=3, held_out=6, classes=3, modes=(0.5, 0.5))
SAMPLING = Sampling(
    generator=str(FOLDER), n_steps=4, every=1, through_network=False, cfg=3.0, cfg_text=1.5, noise_level=0,
    dropout=0.5, scales={"entropy": 0.1, "loss": 0.2, "hardness": 0.3, "combined": 0.4}, fill_to=4,
)  # fmt: skip
RECIPE = Recipe(network="thin", epochs=1, updates_per_epoch=3, batch=8, balanced=0.0)
SETTINGS = BeyondSettings(heads=2, worth=0.5, law=None, tail=0.1, seeds=1)


@pytest.fixture(scope="module")
def methods(root, tmp_path_factory):
    unclip = Generator.load(root / FOLDER, SAMPLING.n_steps)
    exp = Experiment(mini.nicopp(GROUPS), unclip, SAMPLING, RECIPE, tmp_path_factory.mktemp("work"))
    return Methods(exp, SETTINGS)


def test_every_method_of_the_parameters_is_known(root):
    for scale in ("mini", "evening", "paper"):
        for _, names in getattr(load(root / "params.yaml"), scale).beyond.methods:
            check(names)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_makes_a_set_that_a_classifier_can_be_trained_on(methods, name, monkeypatch):
    # Six validation images of three updates need not show that errors fall with counts.
    groups = len(methods.exp.missing)
    monkeypatch.setitem(methods.__dict__, "errors", (np.linspace(0.9, 0.1, groups), np.arange(groups)))
    method = methods[name]
    assert methods[name] is method
    assert 0 < len(method.kept.index) <= len(method.made.index)
    assert (method.kept.index["key"].isin(method.made.index["key"])).all()
    assert methods.operations(method) > 0


@pytest.mark.parametrize("name", ["entropie", "LDM-FG (Entropy), w 0.1", "allocated "])
def test_an_unknown_method_is_refused_before_any_is_made(methods, name):
    said = re.escape(f"No method '{name}': choose from '{UNGUIDED}'")
    with pytest.raises(UserError, match=said):
        check([UNGUIDED, name])
    with pytest.raises(UserError, match=said):
        methods[name]


def test_operations_are_counted_and_do_not_depend_on_what_ran_before(methods):
    exp = methods.exp
    assert operations(exp, methods.fg) == operations(exp, methods.fg) > operations(exp, methods.unguided)
    steps = [operations(exp.sampled(n_steps=n), methods.unguided) for n in (1, 2, 3)]
    # Each step costs the same, beside condition and decoding, which come once.
    assert steps[2] - steps[1] == pytest.approx(steps[1] - steps[0])
    assert steps[0] > steps[1] - steps[0]


def test_what_methods_share_is_counted_once(methods, monkeypatch):
    fresh, asked = Methods(methods.exp, SETTINGS), []
    monkeypatch.setattr(beyond, "operations", lambda exp, method: asked.append(method) or len(asked))
    names = (FG_ENTROPY, "filtered by prototype", UNGUIDED, UNGUIDED_MORE, "BALD, epistemic heads")
    assert [fresh.each(fresh[name]) for name in names] == [1, 1, 2, 2, 3]


def test_more_images_cost_no_more_than_the_printed_method(methods):
    method, printed = methods[UNGUIDED_MORE], methods[FG_ENTROPY]
    assert len(printed.made.index) <= len(method.made.index)
    spent, limit = methods.operations(method), methods.operations(printed)
    assert spent <= limit < spent + methods.each(method) * len(methods.exp.missing)


def test_costs_are_in_units_of_unguided_sampling(methods):
    table = beyond.costs(methods, [UNGUIDED, FG_ENTROPY]).set_index("method")
    assert table.loc[UNGUIDED, "cost"] == 1
    assert table.loc[FG_ENTROPY, "cost"] == pytest.approx(table.loc[FG_ENTROPY, "per_image"])
    assert table.loc[FG_ENTROPY, "cost"] > 1


def test_a_filter_drops_and_says_what(methods):
    method = methods["filtered by prototype"]
    told = method.dropped().set_index("stratum").loc["all"]
    assert told["n"] == len(method.made.index)
    assert told["dropped"] == pytest.approx(100 * (1 - len(method.kept.index) / len(method.made.index)))
    assert methods[UNGUIDED].dropped()["dropped"].max() == 0


def test_a_filtered_set_says_in_its_digest_what_filtered_it(methods):
    printed = methods[FG_ENTROPY]
    some = np.arange(len(printed.made.index)) % 2 == 0
    kept = [replace(printed, keep=lambda made, mask=mask: mask).kept for mask in (some, ~some)]
    assert len({printed.made.digest, *(one.digest for one in kept)}) == 3
    assert kept[0].index["key"].tolist() == printed.made.index["key"][some].tolist()


def test_beside_every_closed_loop_stands_the_one_without_feedback():
    assert closed_loops([2, 4]) == {
        "closed loop, cycles 2": (FG_ENTROPY, 2), "unguided loop, cycles 2": (UNGUIDED, 2),
        "closed loop, cycles 4": (FG_ENTROPY, 4), "unguided loop, cycles 4": (UNGUIDED, 4),
    }  # fmt: skip


def test_a_loop_costs_what_its_set_does_at_once(methods):
    named = closed_loops([2])
    ran, found = run_all(methods, named, [0], "test")
    told = loop_costs(methods, named, ran).set_index("method")
    for name, (method, _) in named.items():
        assert found[name].n_synthetic == told.loc[name, "images"] == len(methods[method].made.index)
        assert told.loc[name, "cost"] == pytest.approx(
            methods.each(methods[method]) / methods.each(methods[UNGUIDED])
        )


def test_the_table_holds_each_method_once_with_its_interval_and_cost():
    wide = {
        name: pd.DataFrame({"method": ["FG", "FG", "a", "a"], metric: [1.0, 3.0, 4.0, 6.0]})
        for name, metric in figures.METRIC.items()
    }
    compared = pd.DataFrame(
        [(name, "a", "FG", metric, 3.0, 2.0, 4.0) for name, metric in figures.METRIC.items()],
        columns=["benchmark", "method", "reference", "metric", "mean", "low", "high"],
    )
    costs = pd.DataFrame(
        [(n, m, 1.5) for n in wide for m in ("a", "FG")], columns=["benchmark", "method", "cost"]
    )
    table = figures.summary(wide, compared, costs, "FG")
    assert table.index.tolist() == ["a", "FG"]
    assert table.loc["a"].tolist() == [5.0, "+3.0 [2.0, 4.0]", 1.5] * 2
    assert table.loc["FG", "Few"] == 2.0
    assert pd.isna(table.loc["FG", "Few, over FG"])


def test_scores_of_methods_can_be_compared(methods):
    exp = methods.exp
    rows = {name: Row(exp.recipe, methods[name].kept) for name in (UNGUIDED, FG_ENTROPY)}
    scored = study.scores(exp, rows, range(2), "test")
    compared = study.compare(exp, scored, [(UNGUIDED, FG_ENTROPY)], "test", ["worst_group_accuracy"])
    alone = figures.differences(compared, [UNGUIDED], pd.Series({UNGUIDED: 1.25}))
    assert [ax.get_xlabel() for ax in alone.axes] == ["worst group, points"]
    assert [t.get_text() for t in alone.axes[0].get_yticklabels()] == [f"{UNGUIDED}: 1.25"]
    assert alone.axes[0].lines[0].get_xdata().tolist() == pytest.approx(compared["mean"].tolist())
    other = compared.assign(benchmark="imagenet_lt", metric="few", method="allocated")
    both = figures.differences(pd.concat([compared, other]), ["allocated", UNGUIDED])
    assert [ax.get_xlabel().split(",")[0] for ax in both.axes] == ["Few", "worst group"]
    for ax in both.axes:
        assert len(ax.lines[0].get_xdata()) == 2, "a row without a number keeps its place"

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fgsynth.beyond import figures
from fgsynth.beyond import methods as beyond
from fgsynth.beyond.loops import closed_loops, loop_costs, run_all
from fgsynth.beyond.methods import METHODS, Methods, check, operations, pushes
from fgsynth.config.names import FG_ENTROPY, UNGUIDED, UNGUIDED_MORE, variant
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
SETTINGS = BeyondSettings(
    members=2, heads=2, level=0.9, pilot=2, grid=(0.1,), worth=0.5, law=None, confidence=0.2, seeds=1
)


@pytest.fixture(scope="module")
def methods(root, tmp_path_factory):
    unclip = Generator.load(root / FOLDER, SAMPLING.n_steps)
    exp = Experiment(mini.nicopp(GROUPS), unclip, SAMPLING, RECIPE, tmp_path_factory.mktemp("work"))
    return Methods(exp, SETTINGS)


def test_every_method_of_the_parameters_is_known(root):
    for scale in ("mini", "evening", "paper"):
        for _, names in getattr(load(root / "params.yaml"), scale).beyond.methods:
            check(names)


@pytest.mark.parametrize("name", [*METHODS, variant(FG_ENTROPY, "w", 0.2)])
def test_every_method_makes_a_set_that_a_classifier_can_be_trained_on(methods, name, monkeypatch):
    # Six validation images of three updates need not show that errors fall with counts.
    groups = len(methods.exp.missing)
    monkeypatch.setitem(methods.__dict__, "errors", (np.linspace(0.9, 0.1, groups), np.arange(groups)))
    method = methods[name]
    assert methods[name] is method
    assert 0 < len(method.kept.index) <= len(method.made.index)
    assert (method.kept.index["key"].isin(method.made.index["key"])).all()
    assert methods.operations(method) > 0


@pytest.mark.parametrize(
    "name", ["entropie", "LDM-FG (Entropy), w high", "LDM-FG (Entropy), w -0.1", "LDM-FG (Entropy), w 0.1 "]
)
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
    # Another scale costs the same; another criterion, another path and none do not.
    each = [
        fresh.each(fresh[name])
        for name in (FG_ENTROPY, variant(FG_ENTROPY, "w", 0.2), "margin", "guided early", UNGUIDED)
    ]
    assert each == [1, 1, 2, 3, 4]
    monkeypatch.undo()
    counted = operations(methods.exp, methods.fg)
    assert (
        methods.each(methods[variant(FG_ENTROPY, "w", 0.2)])
        == counted
        == operations(methods.exp, methods[variant(FG_ENTROPY, "w", 0.2)].method)
    )


def test_another_path_keeps_the_guide_and_the_total_push(methods):
    method = methods["half the steps"]
    assert method.exp.guide is methods.exp.guide
    assert len(method.exp.generator.schedule.steps) == 2
    assert len(methods.exp.generator.schedule.steps) == 4
    for name in (
        "guided early",
        "guided late",
        "gradient reused",
        "half the steps",
    ):
        total = methods[name].method.scale * pushes(methods[name].exp.sampling)
        assert total == pytest.approx(methods.fg.scale * pushes(SAMPLING)), name


@pytest.mark.parametrize(
    ("changes", "expected"), [({}, 4), ({"every": 2}, 2), ({"every": 2, "reuse": True}, 4), ({"stop": 1}, 1)]
)
def test_pushes_are_what_the_sampler_does(changes, expected):
    assert pushes(SAMPLING.model_copy(update=changes)) == expected


@pytest.mark.parametrize("name", [UNGUIDED_MORE, "guided early, more images", "early BALD, more images"])
def test_more_images_cost_no_more_than_the_printed_method(methods, name):
    method = methods[name]
    printed = methods[FG_ENTROPY]
    assert len(printed.made.index) <= len(method.made.index)
    spent, limit = methods.operations(method), methods.operations(printed)
    assert spent <= limit < spent + methods.each(method) * len(methods.exp.missing)


def test_the_worst_group_is_pushed_most_and_all_on_average_as_printed(methods, monkeypatch):
    groups = len(methods.exp.missing)
    errors = np.linspace(0.1, 0.9, groups)
    monkeypatch.setitem(methods.__dict__, "errors", (errors, np.arange(groups)))
    weights = METHODS["worst first"](methods).method.weights
    assert weights == tuple(sorted(weights))
    assert sum(weights) / groups == pytest.approx(1)


def test_costs_are_in_units_of_unguided_sampling(methods):
    table = beyond.costs(methods, [UNGUIDED, FG_ENTROPY, "scale rule"]).set_index("method")
    assert table.loc[UNGUIDED, "cost"] == 1
    assert table.loc[FG_ENTROPY, "cost"] == pytest.approx(table.loc[FG_ENTROPY, "per_image"])
    assert table.loc[FG_ENTROPY, "cost"] > 1
    assert table.loc["scale rule", "cost"] > table.loc["scale rule", "per_image"]


def test_a_filter_drops_and_says_what(methods):
    method = methods["filtered by confidence"]
    told = method.dropped().set_index("stratum").loc["all"]
    assert told["n"] == len(method.made.index)
    assert told["dropped"] == pytest.approx(100 * (1 - len(method.kept.index) / len(method.made.index)))
    assert methods[UNGUIDED].dropped()["dropped"].max() == 0


def test_a_filtered_set_says_in_its_digest_what_filtered_it(methods):
    printed = methods[FG_ENTROPY]
    some = np.arange(len(printed.made.index)) % 2 == 0
    kept = [
        replace(printed, keep=lambda made, mask=mask, name=name: (mask, name)).kept
        for mask in (some, ~some)
        for name in ("prototype", "confidence 0.2")
    ]
    assert len({printed.made.digest, *(one.digest for one in kept)}) == 5
    assert kept[0].index["key"].tolist() == printed.made.index["key"][some].tolist()


def test_loops_have_names():
    named = closed_loops([2, 4], [2], [3], [2], 1, 5)
    assert list(named) == [
        "continued, cycles 2", "continued, cycles 4", "restarted, cycles 2", "triggered, cycles 3",
        "continued early, cycles 2",
    ]  # fmt: skip
    triggered = named["triggered, cycles 3"].settings
    assert (triggered.kind, triggered.cycles, triggered.every) == ("triggered", 3, 5)
    assert named["continued early, cycles 2"].method == "guided early"


def test_a_loop_along_a_cheaper_path_costs_what_its_path_does(methods):
    named = closed_loops([], [], [], [2], 1, 1)
    ran, found = run_all(methods, named, [0], "test")
    (scored,) = found.values()
    told = loop_costs(methods, named, ran).iloc[0]
    assert (scored.method, scored.n_synthetic) == (told["method"], told["images"])
    assert told["images"] == len(methods["guided early"].made.index)
    assert told["cost"] == pytest.approx(
        methods.each(methods["guided early"]) / methods.each(methods[UNGUIDED])
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
    other = compared.assign(benchmark="imagenet_lt", metric="few", method="margin")
    both = figures.differences(pd.concat([compared, other]), ["margin", UNGUIDED])
    assert [ax.get_xlabel().split(",")[0] for ax in both.axes] == ["Few", "worst group"]
    for ax in both.axes:
        assert len(ax.lines[0].get_xdata()) == 2, "a row without a number keeps its place"

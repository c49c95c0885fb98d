import numpy as np
import pandas as pd
import pytest
import yaml

from fgsynth.beyond import figures
from fgsynth.beyond import ideas as beyond
from fgsynth.beyond.flops import operations
from fgsynth.beyond.idea_loops import closed_loops, loop_costs, run_all
from fgsynth.beyond.ideas import IDEAS, Ideas, Settings, check, pushes, sampled
from fgsynth.config.schema import Groups, Sampling
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
SETTINGS = Settings(2, 2, 0.9, 2, (0.1,), 0.5, None, 0.2, 1)


@pytest.fixture(scope="module")
def ideas(root, tmp_path_factory):
    unclip = Generator.load(root / FOLDER, SAMPLING.n_steps)
    exp = Experiment(mini.nicopp(GROUPS), unclip, SAMPLING, RECIPE, tmp_path_factory.mktemp("work"))
    return Ideas(exp, SETTINGS)


def test_every_idea_of_the_parameters_is_known(root):
    for scale in ("mini", "full", "paper"):
        block = yaml.safe_load((root / "params.yaml").read_text())[scale]["beyond"]["ideas"]
        for names in block.values():
            check(names)


@pytest.mark.parametrize("name", [*IDEAS, "w = 0.2"])
def test_every_idea_makes_a_set_that_a_classifier_can_be_trained_on(ideas, name, monkeypatch):
    # Six validation images of three updates need not show that errors fall with counts.
    groups = len(ideas.exp.missing)
    monkeypatch.setitem(ideas.__dict__, "errors", (np.linspace(0.9, 0.1, groups), np.arange(groups)))
    way = ideas[name]
    assert ideas[name] is way
    assert 0 < len(way.kept.index) <= len(way.made.index)
    assert (way.kept.index["key"].isin(way.made.index["key"])).all()
    assert ideas.operations(way) > 0


@pytest.mark.parametrize("name", ["entropie", "w = high", "w = -0.1", "w = 0.1 "])
def test_an_unknown_idea_is_refused_before_any_is_made(ideas, name):
    said = f"No idea '{name}': choose from unguided"
    with pytest.raises(UserError, match=said):
        check(["unguided", name])
    with pytest.raises(UserError, match=said):
        ideas[name]


def test_operations_are_counted_and_do_not_depend_on_what_ran_before(ideas):
    exp = ideas.exp
    assert operations(exp, ideas.fg) == operations(exp, ideas.fg) > operations(exp, ideas.unguided)
    steps = [operations(sampled(exp, n_steps=n), ideas.unguided) for n in (1, 2, 3)]
    # Each step costs the same, beside condition and decoding, which come once.
    assert steps[2] - steps[1] == pytest.approx(steps[1] - steps[0])
    assert steps[0] > steps[1] - steps[0]


def test_what_ways_share_is_counted_once(ideas, monkeypatch):
    fresh, asked = Ideas(ideas.exp, SETTINGS), []
    monkeypatch.setattr(beyond, "operations", lambda exp, method: asked.append(method) or len(asked))
    # Another scale costs the same; another criterion, another path and none do not.
    each = [
        fresh.each(fresh[name]) for name in ("FG entropy", "w = 0.2", "margin", "guided early", "unguided")
    ]
    assert each == [1, 1, 2, 3, 4]
    monkeypatch.undo()
    counted = operations(ideas.exp, ideas.fg)
    assert ideas.each(ideas["w = 0.2"]) == counted == operations(ideas.exp, ideas["w = 0.2"].method)


def test_another_path_keeps_the_guide_and_the_total_push(ideas):
    way = ideas["half the steps"]
    assert way.exp.guide is ideas.exp.guide
    assert len(way.exp.generator.schedule.steps) == 2
    assert len(ideas.exp.generator.schedule.steps) == 4
    for name in (
        "guided early",
        "guided late",
        "gradient reused",
        "half the steps",
    ):
        total = ideas[name].method.scale * pushes(ideas[name].exp.sampling)
        assert total == pytest.approx(ideas.fg.scale * pushes(SAMPLING)), name


@pytest.mark.parametrize(
    ("changes", "expected"), [({}, 4), ({"every": 2}, 2), ({"every": 2, "reuse": True}, 4), ({"stop": 1}, 1)]
)
def test_pushes_are_what_the_sampler_does(changes, expected):
    assert pushes(SAMPLING.model_copy(update=changes)) == expected


@pytest.mark.parametrize(
    "name", ["unguided, more images", "guided early, more images", "half the steps, more images"]
)
def test_more_images_cost_no_more_than_the_printed_method(ideas, name):
    way = ideas[name]
    printed = ideas["FG entropy"]
    assert len(printed.made.index) <= len(way.made.index)
    spent, limit = ideas.operations(way), ideas.operations(printed)
    assert spent <= limit < spent + ideas.each(way) * len(ideas.exp.missing)


def test_the_worst_group_is_pushed_most_and_all_on_average_as_printed(ideas, monkeypatch):
    groups = len(ideas.exp.missing)
    errors = np.linspace(0.1, 0.9, groups)
    monkeypatch.setitem(ideas.__dict__, "errors", (errors, np.arange(groups)))
    weights = IDEAS["worst first"](ideas).method.weights
    assert weights == tuple(sorted(weights))
    assert sum(weights) / groups == pytest.approx(1)


def test_costs_are_in_units_of_unguided_sampling(ideas):
    table = beyond.costs(ideas, ["unguided", "FG entropy", "scale rule"]).set_index("method")
    assert table.loc["unguided", "cost"] == 1
    assert table.loc["FG entropy", "cost"] == pytest.approx(table.loc["FG entropy", "per_image"])
    assert table.loc["FG entropy", "cost"] > 1
    assert table.loc["scale rule", "cost"] > table.loc["scale rule", "per_image"]


def test_a_filter_drops_and_says_what(ideas):
    way = ideas["filtered by confidence"]
    told = way.dropped().set_index("stratum").loc["all"]
    assert told["n"] == len(way.made.index)
    assert told["dropped"] == pytest.approx(100 * (1 - len(way.kept.index) / len(way.made.index)))
    assert ideas["unguided"].dropped()["dropped"].max() == 0


def test_loops_have_names():
    named = closed_loops([2, 4], [2], [3], [2], 1, 5)
    assert list(named) == [
        "continued, 2 cycles", "continued, 4 cycles", "restarted, 2 cycles", "triggered, at most 3",
        "continued, 2 cycles, early",
    ]  # fmt: skip
    triggered = named["triggered, at most 3"].settings
    assert (triggered.kind, triggered.cycles, triggered.every) == ("triggered", 3, 5)
    assert named["continued, 2 cycles, early"].path == "guided early"


def test_a_loop_along_a_cheaper_path_costs_what_its_path_does(ideas):
    named = closed_loops([], [], [], [2], 1, 1)
    ran, found = run_all(ideas, named, [0], "test")
    (scored,) = found.values()
    told = loop_costs(ideas, named, ran).iloc[0]
    assert (scored.method, scored.n_synthetic) == (told["method"], told["images"])
    assert told["images"] == len(ideas["guided early"].made.index)
    assert told["cost"] == pytest.approx(ideas.each(ideas["guided early"]) / ideas.each(ideas["unguided"]))


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


def test_scores_of_ideas_can_be_compared(ideas):
    exp = ideas.exp
    rows = {name: Row(exp.recipe, ideas[name].kept) for name in ("unguided", "FG entropy")}
    scored = study.scores(exp, rows, range(2), "test")
    compared = study.compare(exp, scored, [("unguided", "FG entropy")], "test", ["worst_group_accuracy"])
    alone = figures.differences(compared, ["unguided"], "title")
    assert [ax.get_xlabel() for ax in alone.axes] == ["worst group, points over FG entropy"]
    assert alone.axes[0].lines[0].get_xdata().tolist() == pytest.approx(compared["mean"].tolist())
    other = compared.assign(benchmark="imagenet_lt", metric="few", method="margin")
    both = figures.differences(pd.concat([compared, other]), ["margin", "unguided"], "title")
    assert [ax.get_xlabel().split(",")[0] for ax in both.axes] == ["Few", "worst group"]
    for ax in both.axes:
        assert len(ax.lines[0].get_xdata()) == 2, "a row without a number keeps its place"

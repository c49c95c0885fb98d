import pickle
from dataclasses import replace

import cloudpickle
import pytest

from fgsynth.config.params import load
from fgsynth.config.schema import Classification, Groups, Inversion, LongTail, Sampling
from fgsynth.data import mini
from fgsynth.evidence.ledger import printed_numbers, tables
from fgsynth.experiments import baselines, fill_up, study
from fgsynth.experiments.experiment import Experiment
from fgsynth.experiments.study import Row
from fgsynth.generate.generator import Generator
from fgsynth.generate.plan import Method
from fgsynth.pretrain.files import FOLDER
from fgsynth.train.objectives.vl_ltr import VLLTR
from fgsynth.train.recipe import Recipe
from fgsynth.utils.errors import UserError

MODES = (0.65, 0.2, 0.1, 0.05)
LONG = LongTail(n_max=101, n_min=3, strata=(8, 9, 7), n_val=1, n_test=1, modes=MODES, seed=0)
PLACES = LongTail(n_max=101, n_min=2, strata=(2, 3, 7), n_val=1, n_test=1, modes=MODES, seed=0)
GROUPS = Groups(n_max=6, n_min=1, empty=3, held_out=6, classes=3, modes=MODES)
SAMPLING = Sampling(
    generator=str(FOLDER), n_steps=2, every=1, through_network=False, cfg=3.0, cfg_text=1.5, noise_level=0,
    dropout=0.5, scales={"entropy": 0.1, "loss": 0.2, "hardness": 0.3, "combined": 0.4}, fill_to=2,
)  # fmt: skip
RECIPE = Recipe(network="thin", epochs=1, updates_per_epoch=2, batch=8)
OPTIONS = baselines.Options(1, Inversion(updates=1, batch=2), str(FOLDER), 1e-3)


@pytest.fixture(scope="module")
def unclip(root):
    return Generator.load(root / FOLDER, SAMPLING.n_steps)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def long_tailed(unclip, work):
    return Experiment(mini.imagenet_lt(LONG), unclip, SAMPLING, RECIPE, work)


@pytest.fixture(scope="module")
def scenes(unclip, work):
    return Experiment(mini.places_lt(PLACES), unclip, SAMPLING, RECIPE, work)


@pytest.fixture(scope="module")
def grouped(unclip, work):
    return Experiment(mini.nicopp(GROUPS), unclip, SAMPLING, replace(RECIPE, balanced=0.0), work)


@pytest.fixture(scope="module")
def tables_of_rows(long_tailed, scenes, grouped):
    return {
        "table1_imagenet_lt": baselines.rows(long_tailed, "imagenet_lt", OPTIONS),
        "table2_places_lt": baselines.rows(scenes, "places_lt", OPTIONS),
        "table3_nicopp": baselines.rows(grouped, "nicopp", OPTIONS),
    }


def test_rows_are_those_that_the_tables_print_and_those_that_no_table_prints(tables_of_rows, root):
    described = tables(root / "data/paper")
    printed = {
        name: set(printed_numbers(root / "data/paper", name, described[name])["method"]) for name in described
    }
    for name, table in tables_of_rows.items():
        shared = baselines.SHARED[described[name].benchmark]
        assert tuple(table)[: len(shared)] == shared
        theirs = set(table) - set(shared)
        assert theirs & printed[name] == set(described[name].others)
        assert not (theirs - printed[name]) & set().union(*printed.values())


def test_only_the_rows_that_are_wanted_are_built_and_no_other_can_be(scenes, monkeypatch):
    def built(*_):
        raise AssertionError("not wanted")

    for one in ("filled_up", "with_text", "normalised", "refitted"):
        monkeypatch.setattr(baselines, one, built)
    found = baselines.rows(scenes, "places_lt", OPTIONS, ["MiSLAS", "ResLT"])
    assert tuple(found) == (*baselines.SHARED["places_lt"], "MiSLAS", "ResLT")
    with pytest.raises(UserError, match=r"methods\.places_lt: .* no row 'Remix': choose of Dec"):
        baselines.rows(scenes, "places_lt", OPTIONS, ["Remix"])


def test_fg_is_held_against_every_row_of_others_and_its_combination_against_its_references(tables_of_rows):
    pairs = baselines.pairs(tables_of_rows["table1_imagenet_lt"])
    assert [other for method, other in pairs if method == "LDM-FG (Entropy)"] == list(
        baselines.METHODS["imagenet_lt"]
    )
    assert pairs[-2:] == [
        ("LDM-FG (Entropy) + VL-LTR", "VL-LTR"),
        ("LDM-FG (Entropy) + VL-LTR", "LDM (txt, img, dropout) + VL-LTR"),
    ]
    assert len(pairs) == len(baselines.METHODS["imagenet_lt"]) + 2
    some = {name: tables_of_rows["table3_nicopp"][name] for name in ("ERM", "LDM-FG (Entropy)", "DFR")}
    assert baselines.pairs(some) == [("LDM-FG (Entropy)", "DFR")]


def test_fg_has_its_own_stages_and_selection_on_each_benchmark(tables_of_rows):
    first, second, third = tables_of_rows.values()
    for name in ("LDM (txt, img, dropout)", "LDM-FG (Entropy)"):
        assert first[name].second is None
        assert second[name].second is not None
        assert {first[name].recipe.select, second[name].recipe.select} == {"last"}
    assert {row.recipe.select for row in third.values()} == {"best_average_val"}
    assert first["LDM-FG (Entropy)"].synthetic.digest != first["LDM (txt, img, dropout)"].synthetic.digest


def test_every_row_has_the_same_budget_of_updates_and_images(tables_of_rows, long_tailed):
    costs = [
        (row.recipe.epochs, row.recipe.updates(len(long_tailed.real), False), row.recipe.batch)
        for table in tables_of_rows.values()
        for row in table.values()
    ]
    assert set(costs) == {(1, 2, 8)}


def test_fill_up_has_twice_the_images_on_imagenet_lt_and_as_many_on_places(
    tables_of_rows, long_tailed, scenes
):
    first, second = (
        tables_of_rows[t]["Fill-Up"].synthetic for t in ("table1_imagenet_lt", "table2_places_lt")
    )
    assert len(first.index) == 2 * long_tailed.missing.sum()
    equal = tables_of_rows["table1_imagenet_lt"]["Fill-Up, amount 1"].synthetic
    assert len(equal.index) == long_tailed.missing.sum()
    assert len(second.index) == scenes.missing.sum()
    assert baselines.filled_up(scenes, OPTIONS, 1.0).synthetic.digest == second.digest
    assert second.digest == scenes.synthetic(fill_up.fill_up(OPTIONS.inversion)).digest


def test_vl_ltr_knows_the_classes_and_the_files_of_its_clip(tables_of_rows, long_tailed):
    table = tables_of_rows["table1_imagenet_lt"]
    alone, both = table["VL-LTR"], table["LDM-FG (Entropy) + VL-LTR"]
    method = alone.recipe.objective
    assert isinstance(method, VLLTR)
    assert method.classes == long_tailed.bench.manifest.classes
    assert len(method.digest) == 64
    assert (both.recipe, alone.synthetic) == (alone.recipe, None)
    control = table["LDM (txt, img, dropout) + VL-LTR"]
    assert control.recipe == both.recipe
    assert control.synthetic is not None
    assert control.synthetic.digest != both.synthetic.digest


def test_second_stages_can_be_sent_and_hold_no_experiment(tables_of_rows):
    for table in tables_of_rows.values():
        for name, row in table.items():
            if row.second is not None:
                sent = cloudpickle.dumps(row.second)
                assert len(sent) < 1e6, name
                assert callable(pickle.loads(sent))


@pytest.mark.parametrize("name", ["Decouple-LWS", "Tau-normalised", "MiSLAS", "Fill-Up"])
def test_rows_of_two_stages_are_trained_and_scored(tables_of_rows, scenes, name):
    row = tables_of_rows["table2_places_lt"][name]
    scored = study.scores(scenes, {name: row}, [0], "test")[name]
    assert scored.predicted.shape == (1, 12)


@pytest.mark.parametrize("name", ["GroupDRO", "IRM", "LISA", "RWG", "SUBG", "DFR"])
def test_rows_of_groups_are_trained_and_scored(tables_of_rows, grouped, name):
    row = tables_of_rows["table3_nicopp"][name]
    scored = study.scores(grouped, {name: row}, [0], "test")[name]
    assert 0 <= scored.nested[0]["worst_group_accuracy"] <= 100


def test_group_methods_take_synthetic_images_too(tables_of_rows, grouped):
    made = grouped.synthetic(Method(dropout=0.5))
    row = replace(tables_of_rows["table3_nicopp"]["LISA"], synthetic=made)
    assert study.scores(grouped, {"LISA": row}, [0], "test")["LISA"].n_synthetic == len(made.index)


def test_costs_are_of_every_row_of_others(tables_of_rows, grouped):
    chosen = {name: tables_of_rows["table3_nicopp"][name] for name in ("ERM", "RWG", "DFR")}
    rows = {**chosen, "wide": Row(replace(grouped.recipe, batch=16))}
    costs = baselines.costs(grouped, "nicopp", rows, [0, 1])
    assert set(costs["benchmark"]) == {"nicopp"}
    assert costs[["method", "updates", "images"]].to_numpy().tolist() == [
        ["RWG", 2, 16], ["DFR", 2, 16], ["wide", 2, 32],
    ]  # fmt: skip
    assert (costs["seconds"] > 0).all()


@pytest.mark.parametrize("scale", ["mini", "evening", "paper"])
def test_the_stage_shares_its_settings_with_those_of_the_tables(root, scale):
    stages = getattr(load(root / "params.yaml"), scale)
    mine = stages.baselines
    for name in ("imagenet_lt", "places_lt", "nicopp"):
        theirs = getattr(stages, name)
        fill_to = {"fill_to": getattr(mine.fill_to, name)}
        assert mine.sampling.model_copy(update=fill_to) == theirs.sampling
        changed = mine.training.model_dump() | getattr(mine.changes, name)
        assert Classification.model_validate(changed) == theirs.training
        assert getattr(mine.worlds, name) == theirs.world
        assert getattr(mine.seeds, name) == theirs.seeds
        assert (mine.work, mine.split) == (theirs.work, theirs.split)
    assert (mine.draws, mine.search) == (stages.nicopp.draws, stages.nicopp.search)
    assert mine.second_epochs == stages.places_lt.second_epochs

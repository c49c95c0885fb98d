import pandas as pd
import pytest
import yaml

from fgsynth.config.params import load
from fgsynth.config.stages import NOTEBOOKS
from fgsynth.evidence import ledger
from fgsynth.generate.methods import table_4_rows
from fgsynth.utils.errors import UserError

PRINTED = """method,n_synthetic,overall,few,few_spread,note
base,0,40.0,10.0,,
ours,100,50.0,20.0,2.5,checked twice
worse,0,39.0,8.0,,
"""
NAMES = {"base": "ERM", "ours": "LDM-FG (Entropy)", "worse": "Mixup"}


@pytest.fixture
def folder(tmp_path):
    table = {
        "t": dict(title="T", paper="p", key=["method"], numbers={"n_synthetic": 5, "overall": 1, "few": 1},
                  stage="s", notebook="n", benchmark="b", methods=NAMES)
    }  # fmt: skip
    (tmp_path / "tables.yaml").write_text(yaml.safe_dump(table))
    (tmp_path / "t.csv").write_text(PRINTED)
    return tmp_path


def rows(scale, **values):
    """values: method, or its printed row -> few, one number per seed."""
    return pd.DataFrame(
        [
            dict(scale=scale, benchmark="b", method=NAMES.get(method, method), seed=seed, metric="few",
                 value=float(value), split="test", draw=0, selection="last epoch")
            for method, per_seed in values.items()
            for seed, value in enumerate(per_seed)
        ]
    )  # fmt: skip


def statuses(folder, results):
    book = ledger.ledger(ledger.Printed(folder), results)
    return book[book["column"] == "few"].set_index("row")["status"].to_dict()


EMPTY = rows("mini")


def test_one_row_per_printed_number(folder):
    book = ledger.ledger(
        ledger.Printed(folder), EMPTY.reindex(columns=["scale", "benchmark", "method", "metric"])
    )
    assert len(book) == 9
    assert list(book.columns) == ledger.COLUMNS
    assert (book["status"] == "not run").all()
    line = book[(book["row"] == "ours") & (book["column"] == "few")].iloc[0]
    assert (line["printed"], line["printed_spread"], line["note"]) == (20.0, 2.5, "checked twice")


def test_within_tolerance_or_beyond_only_at_paper_scale(folder):
    near = dict(base=[10.2, 9.9, 10.1], ours=[22.1, 21.9, 22.0])
    assert statuses(folder, rows("mini", **near)) == {"base": "run", "ours": "run", "worse": "not run"}
    paper = statuses(folder, rows("paper", **near))
    assert paper == {"base": "within tolerance", "ours": "within tolerance", "worse": "not run"}
    noisy = rows("paper", base=[0.0, 30.0, 60.0], ours=[40.0, 42.0, 44.0])
    assert statuses(folder, noisy)["base"] == "beyond tolerance"  # our own noise excuses nothing


def test_order_is_the_rank_correlation_with_print_over_seeds(folder):
    printed = "method,n_synthetic,overall,few,few_spread,note\n" + "".join(
        f"{m},{n},{n},{n},,\n" for n, m in enumerate(("base", "ours", "worse", "IRM"))
    )
    (folder / "t.csv").write_text(printed)
    as_printed = rows("mini", base=[1, 1], ours=[2, 2], worse=[3, 3], IRM=[4, 4])
    line = ledger.agreement(ledger.Printed(folder), as_printed).iloc[0]
    assert (line["column"], line["methods"], line["seeds"]) == ("few", 4, 2)
    assert line[["correlation", "low", "high"]].tolist() == pytest.approx([1, 1, 1])
    turned = rows("mini", base=[4, 1], ours=[3, 2], worse=[2, 3], IRM=[1, 4])
    line = ledger.agreement(ledger.Printed(folder), turned).iloc[0]
    assert line[["correlation", "low", "high"]].tolist() == pytest.approx([0, -1, 1], abs=1e-9)
    few = as_printed[as_printed["method"] != "IRM"]
    assert ledger.agreement(ledger.Printed(folder), few).empty
    # A seed that a method lacks is left out, and what is configured has no order.
    lacking = as_printed.drop(as_printed.index[-1])
    assert ledger.agreement(ledger.Printed(folder), lacking)["seeds"].tolist() == [1]
    counts = as_printed.assign(metric="n_synthetic")
    assert ledger.agreement(ledger.Printed(folder), counts).empty


def test_the_largest_scale_that_was_run_counts(folder):
    both = pd.concat([rows("mini", base=[60, 61], ours=[70, 72]), rows("paper", base=[10, 10.1])])
    book = ledger.ledger(ledger.Printed(folder), both)
    line = book[(book["row"] == "base") & (book["column"] == "few")].iloc[0]
    assert (line["scale"], line["ours"], line["seeds"]) == ("paper", pytest.approx(10.05), 2)
    assert (line["split"], line["selection"]) == ("test", "last epoch")


def test_the_real_tables_are_read_whole(root):
    printed = root / "data" / "paper"
    book = ledger.ledger(
        ledger.Printed(printed), EMPTY.reindex(columns=["scale", "benchmark", "method", "metric"])
    )
    described = ledger.tables(printed)
    assert {p.stem for p in printed.glob("table*.csv")} == set(described)
    for name, table in described.items():
        wide = pd.read_csv(printed / f"{name}.csv")
        mine = book[book["table"] == name]
        assert len(mine) == wide[list(table.numbers)].notna().sum().sum()
        assert set(table.others) <= set(mine["method"])
        assert set(table.methods) <= set(mine["row"])
    line = book.query(
        "table == 'table3_nicopp' and row == 'LDM FG (Entropy)' and column == 'worst_group_accuracy'"
    )
    assert line[["printed", "printed_spread"]].to_numpy().tolist() == [[49.2, 0.97]]


def test_every_table_is_made_by_the_stage_and_notebook_it_names(root):
    described = ledger.tables(root / "data" / "paper")
    made_by = {name.split("_")[0]: table.benchmark for name, table in described.items()}
    assert made_by == {
        "table1": "imagenet_lt",
        "table2": "places_lt",
        "table3": "nicopp",
        "table4": "ablations",
        "table6": "imagenet_lt",
    }
    for table in described.values():
        assert (table.stage, table.notebook) == (table.benchmark, NOTEBOOKS[table.benchmark])


def test_tables_4_and_6_are_filled_from_the_experiments_of_their_benchmarks(root):
    printed = root / "data" / "paper"
    names = table_4_rows(load(root / "params.yaml").mini.ablations.sampling)
    of_table_4 = rows("mini", **{name: [10, 11] for name in names}).assign(
        benchmark="ablations", metric="few_val_accuracy"
    )
    of_table_6 = rows("mini", **{"LDM-FG (Combined)": [50, 51], "LDM-FG (Entropy)": [60, 62]})
    results = pd.concat([of_table_4, of_table_6.assign(benchmark="imagenet_lt")])
    book = (
        ledger.ledger(ledger.Printed(printed), results).dropna(subset="ours").set_index(["table", "method"])
    )
    assert set(book.loc["table4_ablation"].index) == set(names)
    assert set(book.loc["table4_ablation", "column"]) == {"few_val_accuracy"}
    assert book.loc["table6_combined", "ours"].to_dict() == {
        "LDM-FG (Combined)": 50.5,
        "LDM-FG (Entropy)": 61.0,
    }
    assert set(book.loc["table1_imagenet_lt"].index) == {"LDM-FG (Entropy)"}


@pytest.mark.parametrize("key", ["methods", "others"])
def test_a_method_that_there_is_not_is_named(folder, key):
    described = yaml.safe_load((folder / "tables.yaml").read_text())
    wrong = {"methods": {"ours": "FG entropy"}, "others": ["FG entropy"]}[key]
    (folder / "tables.yaml").write_text(yaml.safe_dump({"t": described["t"] | {key: wrong}}))
    with pytest.raises(UserError, match=r"tables\.yaml, t: there is no method 'FG entropy'; the nearest"):
        ledger.ledger(ledger.Printed(folder), EMPTY)
    (folder / "tables.yaml").write_text(yaml.safe_dump({"t": described["t"] | {"methods": {}}}))
    with pytest.raises(UserError, match=r"t\.csv: there is no method 'base'"):
        ledger.ledger(ledger.Printed(folder), EMPTY)


def test_missing_files_and_columns_are_named(folder):
    (folder / "t.csv").write_text("method,n_synthetic,overall\nbase,0,1\n")
    with pytest.raises(UserError, match=r"t\.csv has no column 'few'"):
        ledger.ledger(ledger.Printed(folder), EMPTY)
    (folder / "t.csv").unlink()
    with pytest.raises(UserError, match=r"t\.csv is missing"):
        ledger.ledger(ledger.Printed(folder), EMPTY)
    (folder / "tables.yaml").unlink()
    with pytest.raises(UserError, match=r"tables\.yaml is missing"):
        ledger.ledger(ledger.Printed(folder), EMPTY)


def test_rows_of_other_methods_are_made_by_their_own_stage(root):
    printed = root / "data" / "paper"
    book = ledger.ledger(
        ledger.Printed(printed), EMPTY.reindex(columns=["scale", "benchmark", "method", "metric"])
    )
    theirs = book[book["stage"] == "baselines"]
    assert set(theirs["notebook"]) == {NOTEBOOKS["baselines"]}
    found = {table: set(mine["method"]) for table, mine in theirs.groupby("table")}
    assert found == {name: set(t.others) for name, t in ledger.tables(printed).items() if t.others}
    assert {"Fill-Up", "VL-LTR"} <= found["table1_imagenet_lt"]

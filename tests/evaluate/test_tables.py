import pandas as pd
import pytest

from fgsynth.evaluate import tables
from fgsynth.utils.errors import UserError

ROW = {"scale": "mini", "benchmark": "b", "method": "ERM", "seed": 0, "metric": "few", "value": 1.0,
       "split": "test", "selection": "none"}  # fmt: skip
PAIR = {"scale": "mini", "benchmark": "b", "method": "ERM", "reference": "IRM", "metric": "few",
        "mean": 1 / 3, "low": -1.0, "high": 2.0, "seeds": 3, "split": "test"}  # fmt: skip


def _of_a_stage(reports, name, text, stage="stage"):
    path = reports / "mini" / stage / name
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_round_trip(tmp_path):
    rows = pd.DataFrame([ROW | {"seed": 1}, ROW])
    _of_a_stage(tmp_path, "results.csv", tables.to_csv(rows))
    assert tables.read_all(tmp_path)["seed"].tolist() == [1, 0]


def test_no_results_is_an_empty_table(tmp_path):
    assert list(tables.read_all(tmp_path).columns) == [*tables.COLUMNS, "draw"]


def test_tidy_leaves_out_what_was_not_measured():
    wide = pd.DataFrame({"method": ["a", "b"], "seed": 0, "x": [1.0, None], "y": [2.0, 3.0]})
    rows = tables.tidy(wide, ["x", "y"], benchmark="b", split="test", selection="none")
    assert len(rows) == 3
    assert rows.query("method == 'b'")["metric"].tolist() == ["y"]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([ROW, ROW], "is there twice"),
        ([ROW | {"value": float("inf")}], "no finite value"),
        ([ROW | {"value": float("nan")}], "no finite value"),
        ([ROW | {"value": "62.x"}], "no finite value"),
        ([ROW | {"extra": 1}], "columns extra"),
        ([ROW | {"method": "erm"}], "here: there is no method 'erm'; the nearest name is 'ERM'"),
        ([{k: v for k, v in ROW.items() if k != "split"}], "columns split"),
    ],
)
def test_untidy_rows_are_refused(rows, sentence):
    with pytest.raises(UserError, match=sentence):
        tables.check(pd.DataFrame(rows), "here")


def test_a_damaged_file_is_named(tmp_path):
    _of_a_stage(tmp_path, "results.csv", "")
    with pytest.raises(UserError, match=r"stage/results\.csv is no readable CSV"):
        tables.read_all(tmp_path)


def test_comparisons_round_trip(tmp_path):
    rows = pd.DataFrame([PAIR | {"metric": "many"}, PAIR])
    _of_a_stage(tmp_path, "comparisons.csv", tables.comparisons_to_csv(rows[rows.columns[::-1]]))
    read = tables.read_comparisons(tmp_path)
    assert list(read.columns) == [*tables.COMPARED, "draw"]
    assert read["metric"].tolist() == ["many", "few"]
    assert read["mean"].tolist() == [0.333333] * 2


def test_no_comparisons_are_an_empty_table(tmp_path):
    read = tables.read_comparisons(tmp_path)
    assert read.empty
    assert list(read.columns) == [*tables.COMPARED, "draw"]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [PAIR, PAIR | {"mean": 0.0}],
            "'method': 'ERM', 'reference': 'IRM', 'metric': 'few'",
        ),
        ([PAIR | {"low": 3.0}], "here: an interval has its ends the wrong way round or missing"),
        ([PAIR | {"high": float("nan")}], "wrong way round or missing"),
        ([PAIR | {"selection": "none"}], "here: columns selection are missing or unknown; need scale"),
        ([{k: v for k, v in PAIR.items() if k != "seeds"}], "columns seeds"),
    ],
)
def test_what_are_no_comparisons_is_refused(rows, sentence):
    with pytest.raises(UserError, match=sentence):
        tables.check_comparisons(pd.DataFrame(rows), "here")


def test_a_pair_in_two_files_is_refused(tmp_path):
    for name in ("a", "b"):
        _of_a_stage(tmp_path, "comparisons.csv", tables.comparisons_to_csv(pd.DataFrame([PAIR])), name)
    with pytest.raises(UserError, match="is there twice"):
        tables.read_comparisons(tmp_path)

import numpy as np
import pandas as pd
import pytest
from tiny_results import tidy

from fgsynth.config.names import ERM, FG_ENTROPY, TEXT, UNGUIDED
from fgsynth.evaluate.tables import COMPARED
from fgsynth.evidence.pieces import Comparison, Computed, Estimate, Found, Piece, read_margins
from fgsynth.utils.errors import UserError

ASKED = Comparison("printed", "imagenet_lt", "few", FG_ENTROPY, TEXT, "table1_imagenet_lt")
NONE = pd.DataFrame(columns=COMPARED)


def piece(low, high, test="greater", margin=0.0, **changed):
    asked = Comparison("printed", "b", "few", FG_ENTROPY, TEXT, test=test)
    given = dict(scale="mini", in_range=True, printed=None) | changed
    return Piece(asked, estimate=Estimate((low + high) / 2, low, high, 3, "t"), margin=margin, **given)


@pytest.mark.parametrize(
    ("low", "high", "test", "outcome"),
    [
        (0.1, 2, "greater", "supports"),
        (-0.1, 2, "greater", "undecided"),
        (-2, -0.1, "greater", "contradicts"),
        (0, 2, "greater", "undecided"),
        (-0.9, 3, "not less", "supports"),
        (-1.1, 3, "not less", "undecided"),
        (-3, -1.1, "not less", "contradicts"),
        (-0.9, 0.9, "equal", "supports"),
        (-0.9, 1.1, "equal", "undecided"),
        (1.1, 3, "equal", "contradicts"),
        (-3, -1.1, "equal", "contradicts"),
    ],
)
def test_an_outcome_is_where_the_interval_lies(low, high, test, outcome):
    assert piece(low, high, test, margin=0.0 if test == "greater" else 1.0).outcome == outcome


def test_what_cannot_be_told_apart_or_was_not_run_decides_nothing():
    assert piece(1, 2, in_range=False).outcome == "out of range"
    assert Piece(ASKED, None, None, True, 0.0, 8.8).outcome == "not run"
    assert str(Piece(ASKED, None, None, True, 0.0, 8.8)) == f"few: {FG_ENTROPY} - {TEXT}: not run"
    assert piece(-np.inf, np.inf).outcome == "undecided"
    # Draws that agree to the last digit are no certainty.
    assert {piece(5, 5, test, margin=9.0).outcome for test in ("greater", "not less", "equal")} == {
        "undecided"
    }


def test_the_printed_size_is_held_or_excluded():
    assert piece(1, 3, printed=2.0).size == "holds"
    assert piece(1, 3, printed=3.5).size == "excludes"
    assert piece(1, 3).size is None


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (1, 3, "+2.0 [+1.0, +3.0]"),
        (-0.0144, 0.0044, "-0.005 [-0.014, +0.004]"),
        (0.01, 2.95, "+1.48 [+0.01, +2.95]"),
        (0, 0, "+0.0 [+0.0, +0.0]"),
    ],
)
def test_decimals_show_the_sign_of_both_ends(low, high, shown):
    assert piece(low, high).interval == shown


def found(root, rows, compared=NONE):
    return Found(rows, compared, root / "data" / "paper")


def test_a_difference_is_paired_by_seed_and_sized_by_the_printed_table(root):
    rows = tidy("imagenet_lt", **{f"{FG_ENTROPY}:few": [50, 61, 72], f"{TEXT}:few": [45, 55, 65]})
    got = found(root, rows).piece(ASKED)
    assert (got.estimate.mean, got.estimate.n, got.scale) == (pytest.approx(6), 3, "mini")
    assert got.estimate.high - got.estimate.mean == pytest.approx(4.302653 / 3**0.5)
    assert got.printed == pytest.approx(59.1 - 50.3)
    assert (got.outcome, got.size) == ("supports", "excludes" if got.estimate.high < 8.8 else "holds")


def test_a_stored_comparison_goes_first_and_may_be_turned_round(root):
    rows = tidy("imagenet_lt", **{f"{FG_ENTROPY}:few": [50, 61], f"{TEXT}:few": [45, 55]})
    line = dict(
        scale="mini", benchmark="imagenet_lt", metric="few", mean=3, low=1, high=4, seeds=2, split="final"
    )
    there = pd.DataFrame([line | dict(method=FG_ENTROPY, reference=TEXT)])
    back = pd.DataFrame([line | dict(method=TEXT, reference=FG_ENTROPY)])
    assert found(root, rows, there).piece(ASKED).interval == "+3.0 [+1.0, +4.0]"
    assert found(root, rows, back).piece(ASKED).interval == "-3.0 [-4.0, -1.0]"
    for other in (dict(scale="smoke"), dict(benchmark="places_lt"), dict(metric="overall")):
        assert found(root, rows, there.assign(**other)).piece(ASKED).interval != "+3.0 [+1.0, +4.0]"


def test_the_largest_scale_is_taken(root):
    few = {f"{FG_ENTROPY}:few": [50, 61], f"{TEXT}:few": [45, 55]}
    both = pd.concat([tidy("imagenet_lt", s, **few) for s in ("smoke", "paper", "mini")])
    assert found(root, both).piece(ASKED).scale == "paper"


def test_a_piece_is_of_the_largest_scale_that_has_it_and_tells_the_smaller(root):
    few = {f"{FG_ENTROPY}:few": [50, 61], f"{TEXT}:few": [45, 55]}
    other = tidy("imagenet_lt", "evening", **{f"{ERM}:few": [1, 2]})
    both = pd.concat([tidy("imagenet_lt", s, **few) for s in ("smoke", "mini")])
    got = found(root, pd.concat([both, other])).piece(ASKED)
    assert got.scale == "mini"
    assert [p.scale for p in got.smaller] == ["smoke"]
    assert got.smaller[0].interval == got.interval


def test_several_draws_are_what_an_interval_is_over(root):
    few = {f"{FG_ENTROPY}:few": [50, 61], f"{TEXT}:few": [45, 55]}  # differences 5 and 6
    more = {f"{FG_ENTROPY}:few": [40, 41], f"{TEXT}:few": [33, 30]}  # 7 and 11
    first, second = tidy("imagenet_lt", **few), tidy("imagenet_lt", draw=1, **more)
    second["seed"] += 2
    line = dict(scale="mini", benchmark="imagenet_lt", metric="few", method=FG_ENTROPY, reference=TEXT,
                mean=3, low=1, high=4, seeds=2, split="final")  # fmt: skip
    stored = pd.DataFrame([line, line]).assign(draw=[0, 1])
    got = found(root, pd.concat([first, second]), stored).piece(ASKED).estimate
    assert (got.mean, got.n, got.kind) == (pytest.approx(7.25), 2, "Student over draws")
    assert got.high - got.mean == pytest.approx(12.706 * 3.5 / 2, rel=1e-3)


@pytest.mark.parametrize(
    ("method", "reference", "outcome"),
    [(95, 91, "out of range"), (95, 85, "supports"), (85, 95, "contradicts"), (30, 2, "out of range")],
)
def test_accuracies_at_the_ceiling_or_over_the_floor_are_out_of_range(root, method, reference, outcome):
    rows = tidy("places_lt", **{f"{UNGUIDED}:few": [method] * 3, f"{ERM}:few": [reference] * 3})
    asked = Comparison("control", "places_lt", "few", UNGUIDED, ERM)
    assert found(root, rows).piece(asked).outcome == outcome
    # Distances have neither.
    same = tidy("places_lt", **{f"{UNGUIDED}:fid": [method] * 3, f"{ERM}:fid": [reference] * 3})
    unbounded = Comparison("control", "places_lt", "fid", UNGUIDED, ERM)
    assert found(root, same).piece(unbounded).outcome != "out of range"


def test_a_computed_quantity_is_over_its_seeds_and_not_run_where_it_has_none(root):
    rows = tidy("ablations", **{f"{TEXT}:kept": [60, 62, 61]})
    asked = Computed("printed", "ablations", "kept", lambda of: of.set_index("seed")["value"] - 50)
    assert found(root, rows).piece(asked).estimate.mean == pytest.approx(11)
    nothing = Computed("printed", "ablations", "kept", lambda _: pd.Series(dtype=float))
    assert found(root, rows).piece(nothing).outcome == "not run"
    assert found(root, rows.iloc[:0]).piece(asked).outcome == "not run"


def test_unknown_methods_and_margins_are_named(root):
    with pytest.raises(UserError, match="A rule: there is no method 'FG entropy'"):
        found(root, tidy("b", ERM=[1])).piece(Comparison("row", "b", "few", "FG entropy", ERM))
    with pytest.raises(UserError, match="has no margin 'loose', which a rule needs"):
        found(root, tidy("b", ERM=[1])).piece(Comparison("row", "b", "few", ERM, TEXT, margin="loose"))


def test_margins_are_read_or_named(tmp_path):
    with pytest.raises(UserError, match=r"margins\.yaml is missing"):
        read_margins(tmp_path)
    (tmp_path / "margins.yaml").write_text("floor: 5\nceiling: high\nmargins: {}\n")
    with pytest.raises(UserError, match=r"margins\.yaml: .*ceiling"):
        read_margins(tmp_path)

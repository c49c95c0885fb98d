import pytest

from fgsynth.evidence import page
from fgsynth.evidence.strips import reach, strip, with_strips


def line(mean, low, high, **more):
    return {"mean": mean, "low": low, "high": high, "difference": "few: a - b", "unit": "x"} | more


def test_an_interval_many_times_as_wide_as_the_rest_does_not_set_the_axis():
    usual = [line(6.0, -11.0, 23.0), line(1.7, -36.6, 39.9), line(-5.0, -18.1, 8.1)]
    wide = line(-4.3, -161.1, 152.4)
    assert reach([*usual, wide]) == 39.9
    assert reach(usual) == 39.9
    assert reach([*usual, line(-150.0, -161.1, 0.0)]) == 161.1  # not where it lies far out as a whole
    assert reach([*usual, line(1.0, 0.0, 2.0, printed=70.0)]) == 70.0
    assert reach([wide]) == 161.1
    assert reach([line(0.0, 0.0, 0.0)]) > 0


def test_a_bar_that_goes_on_has_an_arrow_at_that_end_and_its_mark_where_the_mean_is():
    shown = strip(line(-10.0, -161.0, 20.0, printed=""), 40.0)
    assert shown == {"low": 0, "high": 75, "mean": 37.5, "left": True, "right": False}
    template = '{% from "macros.html" import strip %}{{ strip(line) }}'
    made = {"strip": shown, "role": "row", "outcome": "undecided"}
    html = page._environment().from_string(template).render(line=made)
    assert '<i class="left " style="left:0.0%;width:75.0%">' in html
    inside = {"strip": strip(line(1.0, -2.0, 3.0), 40.0), "role": "row", "outcome": "undecided"}
    assert 'class="left' not in page._environment().from_string(template).render(line=inside)


def test_lines_of_one_unit_share_an_axis_and_what_was_not_run_has_none():
    few, fid = line(1.0, -2.0, 3.0), line(0.1, 0.0, 0.2, difference="fid: a - b")
    other = line(4.0, 2.0, 6.0, difference="overall: a - b")
    shown = with_strips([few, fid, other, line("", "", "")])
    assert [x["unit"] for x in shown] == ["points", "fid", "points", "points"]
    assert [x.get("end") for x in shown] == ["6.2", "0.21", "6.2", None]
    assert shown[2]["strip"]["high"] == pytest.approx(50 + 50 / 1.04, abs=0.01)

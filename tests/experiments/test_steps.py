from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from tiny_bench import bench

from fgsynth.experiments import steps, study
from fgsynth.experiments.study import Scored
from fgsynth.generate.synthetic_set import SyntheticSet

LONG = bench({"train": (15, 101, 20), "val": (1, 1, 1)})
GROUPS = bench({"train": (3, 0, 2, 1), "val": (1, 1, 1, 1)}, ("dim", "rock"))


def made(labels, value=0):
    """As an index has it; pixels say the row and the set."""
    rows = [(f"{y}-{i}", y, y, f"c{y} in rock") for i, y in enumerate(labels)]
    index = pd.DataFrame(rows, columns=["key", "label", "group", "prompt"])
    index = index.assign(index=0, condition="", seed=0, before=0.0, after=0.0)
    x = (torch.arange(len(index)) + value).reshape(-1, 1, 1, 1).expand(-1, 4, 4, 3).to(torch.uint8)
    return SyntheticSet(index, x, "")


def test_a_benchmark_is_described_by_strata_or_by_empty_groups():
    text = steps.described(SimpleNamespace(bench=LONG))
    assert text == (
        f"tiny mini, digest {LONG.manifest.digest[:12]}: 136 training images, 15 to 101 per class "
        "(1 many, 1 medium, 1 few)"
    )
    assert "6 training images, 0 to 3 per group (1 of 4 empty)" in steps.described(
        SimpleNamespace(bench=GROUPS)
    )


def test_the_long_tail_falls_and_has_a_bar_per_class():
    figure, bars = steps.long_tail(SimpleNamespace(bench=LONG))
    assert bars.to_numpy().tolist() == [["bee", 101, "many"], ["cat", 20, "medium"], ["ant", 15, "few"]]
    heights = [bar.get_height() for bar in figure.axes[0].patches if bar.get_height()]
    assert sorted(heights, reverse=True) == bars["images"].tolist()
    plt.close("all")


def test_keys_are_spread_over_the_chosen_groups():
    one, chosen = made([0, 1] * 10), np.array([False, True])
    assert steps.some_keys(one, chosen, 5) == [f"1-{i}" for i in (1, 5, 9, 13, 17)]
    assert len(steps.some_keys(one, chosen, 4)) == 4
    assert len(steps.some_keys(one, chosen, 50)) == 10


def test_the_sample_sheet_shows_the_same_keys_of_every_set_wherever_they_lie():
    first = made([0, 1, 2])
    index = first.index.iloc[::-1].reset_index(drop=True)
    second = SyntheticSet(index, first.x.flip(0) + 100, "")
    figure, rows = steps.sample_sheet({"a": first, "b": second}, ["2-2", "0-0"])
    assert rows[["method", "key"]].to_numpy().tolist() == [
        ["a", "2-2"], ["a", "0-0"], ["b", "2-2"], ["b", "0-0"],
    ]  # fmt: skip
    assert [ax.images[0].get_array()[0, 0, 0] for ax in figure.axes] == [2, 0, 102, 100]
    assert [ax.get_title() for ax in figure.axes[:2]] == ["c2\nin rock", "c0\nin rock"]
    plt.close("all")


def test_contents_have_a_row_per_set_and_no_column_without_a_judge(monkeypatch):
    monkeypatch.setattr(study, "contents_of", lambda exp, made: {"recognised": made} if exp else {})
    assert steps.contents(True, {"a": 1.0, "b": 2.0})["recognised"].to_dict() == {"a": 1.0, "b": 2.0}
    assert steps.contents(False, {"a": 1.0, "b": 2.0}).shape == (2, 0)


def scored(method, overall):
    return Scored(method, (0, 1), 0, np.zeros((2, 1), int), ({"overall": overall}, {"overall": overall + 2}))


def test_methods_along_a_number_rise():
    wide = steps.along("w", {0.1: scored("IRM", 5.0), 0.0: scored("ERM", 1.0)})
    assert wide[["w", "method", "overall"]].to_numpy().tolist() == [
        [0.0, "ERM", 1], [0.0, "ERM", 3], [0.1, "IRM", 5], [0.1, "IRM", 7],
    ]  # fmt: skip


def test_headlines_are_means_over_seeds():
    table = study.table([scored("ERM", 1.0), scored("IRM", 5.0)])
    assert steps.headline(table, ["IRM", "ERM"], ["overall"]) == {"IRM, overall": 6.0, "ERM, overall": 2.0}


def test_a_world_of_another_digest_is_refused(monkeypatch):
    monkeypatch.setattr(steps, "of_world", lambda *settings: SimpleNamespace(bench=LONG))
    asked = []
    monkeypatch.setattr(steps, "verify", lambda manifest, path, scale: asked.append((manifest, scale)))
    assert steps.load("tiny", "smoke", {}, {}, {}, "work").bench is LONG
    assert asked == [(LONG.manifest, "smoke")]

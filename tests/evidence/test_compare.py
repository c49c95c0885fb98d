import shutil
import subprocess

import pandas as pd
import pytest

from fgsynth.evidence import compare, report
from fgsynth.utils.errors import UserError

RESULTS = "reports/evening/toy_2d/results.csv"


@pytest.fixture
def committed(checkout, root):
    """A checkout whose report is committed."""
    for path in (root / "reports").glob("*/*/*s.csv"):
        copy = checkout / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    report.build(checkout)
    for command in ("init -q", "add -A", "-c user.name=a -c user.email=a@b commit -qm all"):
        subprocess.run(["git", *command.split()], cwd=checkout, check=True)
    return checkout


def change(checkout, scale):
    """Scale the minority accuracy of the guided method."""
    rows = pd.read_csv(checkout / RESULTS)
    mine = (rows["method"] == "DDPM-FG (Entropy)") & (rows["metric"] == "minority_accuracy")
    rows.loc[mine, "value"] *= scale
    rows.to_csv(checkout / RESULTS, index=False)
    return int(mine.sum())


def test_an_unchanged_run_is_equal_in_every_number(committed):
    found = compare.changes(committed)
    n = len(pd.read_csv(committed / "reports" / "results.csv"))
    assert found.text.splitlines() == [
        f"{n} numbers: {n} equal, 0 within rounding, 0 different; 0 new, 0 gone.",
        "All outcomes are those of HEAD.",
    ]
    assert not found.outcomes


def test_rounding_is_told_apart_from_another_training(committed):
    n = change(committed, 1 + 2e-5)
    assert f" {n} within rounding, 0 different" in compare.changes(committed).text
    change(committed, 1.01)
    found = compare.changes(committed)
    assert f" 0 within rounding, {n} different" in found.text
    assert found.text.count("  evening, toy_2d, DDPM-FG (Entropy), minority_accuracy, seed 20") == n
    assert not found.outcomes


def test_a_changed_outcome_is_told_with_both(committed):
    change(committed, 0.5)
    found = compare.changes(committed)
    assert found.outcomes
    assert (
        "C15, control, minority accuracy: DDPM-FG (Entropy) - DDPM, toy_2d (outcome): "
        "supports committed, contradicts now" in found.text
    )
    assert "C15 (as printed): supported committed, mixed now" in found.text


def test_rows_that_are_gone_are_counted(committed):
    rows = pd.read_csv(committed / RESULTS)
    rows[rows["method"] != "balanced real"].to_csv(committed / RESULTS, index=False)
    gone = int((rows["method"] == "balanced real").sum())
    assert f"0 new, {gone} gone" in compare.changes(committed).text


def test_without_a_commit_to_compare_with(committed):
    with pytest.raises(UserError, match=r"No committed reports/results\.csv .* git clone"):
        compare.changes(committed, "no-such-commit")
    shutil.rmtree(committed / ".git")
    with pytest.raises(UserError, match="git clone"):
        compare.changes(committed)

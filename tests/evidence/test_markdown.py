import re

import pandas as pd
import pytest
from tiny_results import tidy

from fgsynth.evaluate import tables
from fgsynth.evaluate.metrics import Bootstrap, Interval
from fgsynth.evidence import markdown
from fgsynth.evidence.ledger import ledger
from fgsynth.evidence.rules import RULES, Evidence
from fgsynth.utils.blocks import with_block

MARKDOWN = """\
| imagenet_lt | overall, printed | overall, ours (mini) | few, printed | few, ours (mini) |
| --- | ---: | ---: | ---: | ---: |
| LDM (txt, img, dropout) | - | 51.0 ± 12.7 | - | 20.0 ± 0.0 |
| ERM | 43.4 | 50.0 ± 0.0, does not hold | 8.2 | 12.0 ± 0.0, does not hold |

| nicopp | average accuracy, printed | average accuracy, ours (paper) | worst group accuracy, printed \
| worst group accuracy, ours (paper) |
| --- | ---: | ---: | ---: | ---: |
| Decouple-cRT | 85.2 | 60.0 ± 0.0, does not hold | 43.3 | 30.0 ± 0.0, does not hold |"""


def test_markdown_shows_what_was_run_of_tables_1_to_3_beside_the_printed_numbers(root):
    same, fg = "LDM (txt, img, dropout)", "LDM-FG (Entropy)"
    swept = {f"{fg}, {what}": [1, 1] for what in ("amount 0.125", "weight 0", "amount 1")}
    crt = {"Decouple-cRT:average_accuracy": [60, 60], "Decouple-cRT:worst_group_accuracy": [30, 30]}
    few = {f"{same}:few": [20, 20], "ERM:few": [12, 12], "ERM:many": [70, 70]}
    rows = pd.concat(
        [
            tidy("imagenet_lt", **{same: [50, 52]}, ERM=[50, 50], **few, **swept),
            tidy("nicopp", "paper", **crt, **{"LDM-FG (Entropy), w 0.1:average_accuracy": [1, 1]}),
            tidy("nicopp", "mini", **{key: [9, 9] for key in crt}),
            tidy("ablations", ERM=[1, 1]),
        ]
    )
    book = ledger(root / "data" / "paper", rows)
    assert markdown.tables(book, rows) == MARKDOWN
    assert markdown.tables(book, rows[rows["benchmark"] == "ablations"]) == ""


@pytest.fixture(scope="module")
def committed(root):
    """Results and comparisons as they are committed."""
    reports = root / "reports"
    return tables.read_all(reports / "results"), tables.read_comparisons(reports / "comparisons")


def test_the_readme_is_what_the_results_give(root, committed):
    readme, blocks = (root / "README.md").read_text(), markdown.blocks(*committed)
    assert set(blocks) == {"c15", "c7", "few", "tally", "answers"}
    for mark, block in blocks.items():
        assert readme.count(f"<!--{mark}-->") == readme.count(f"<!--/{mark}-->") == 1
        assert with_block(readme, mark, block) == readme


def test_the_gains_in_the_readme_are_those_of_the_results(root, committed):
    mean = committed[0].groupby(["benchmark", "method", "metric"])["value"].mean()
    readme = (root / "README.md").read_text()
    for mark, benchmark, metric, methods in (
        ("c15", "toy_2d", "minority_accuracy", ("DDPM", "DDPM-FG (Entropy)")),
        ("c7", "ablations", "recognised", ("LDM (txt)", "LDM (txt and img)")),
        ("few", "imagenet_lt_features", "few", ("Balanced Softmax", "sampler chosen on validation")),
    ):
        expected = " -> ".join(f"{mean[benchmark, method, metric]:.1f} %" for method in methods)
        assert f"<!--{mark}-->{expected}<!--/{mark}-->" in readme


ROUNDED = 0.11
"""An end as near to zero as that may lie on either side: texts have one decimal."""


def told_sides(evidence):
    """The outcome of each piece of an evidence column, read from its text; "?" where rounding hides it."""
    sides, number = [], r"[+-][\d.]+"
    for piece in "; ".join(evidence).split("; "):
        if found := re.search(rf": {number} \[({number}), ({number})\]$", piece):
            low, high = map(float, found.groups())
        else:
            mean, half = map(float, re.search(rf": ({number}) ± ([\d.]+) \(\d+ seeds\)$", piece).groups())
            low, high = mean - half, mean + half
        hidden = min(abs(low), abs(high)) < ROUNDED
        sides.append("?" if hidden else "yes" if low > 0 else "no" if high < 0 else "not decided")
    return sides


def test_the_tally_counts_the_intervals_of_the_claims(root):
    evidence = pd.read_csv(root / "reports" / "claims.csv").set_index("id")["evidence"]
    sides = told_sides(evidence)
    _, told, _ = re.split("<!--/?tally-->", (root / "README.md").read_text())
    counts, whole = told.split("; only yes for ")
    total, *each = map(
        int,
        re.fullmatch(
            r"(\d+) differences: (\d+) yes, (\d+) not decided, (\d+) no, 0 not run", counts
        ).groups(),
    )
    assert total == len(sides) == sum(each)
    for name, count in zip(("yes", "not decided", "no"), each, strict=True):
        assert sides.count(name) <= count <= sides.count(name) + sides.count("?")
    found = {claim: set(told_sides([text])) for claim, text in evidence.items()}
    assert {claim for claim, mine in found.items() if mine == {"yes"}} <= set(whole.split(", "))
    assert all(found[claim] <= {"yes", "?"} for claim in whole.split(", "))


def test_every_answer_is_a_piece_of_its_claim_with_its_outcome(root):
    claims = pd.read_csv(root / "reports" / "claims.csv").set_index("id")
    _, told, _ = re.split("<!--/?answers-->", (root / "README.md").read_text())
    lines = told.strip().splitlines()
    assert len(lines) == len(markdown.QUESTIONS) == 5
    for line, (question, wanted) in zip(lines, markdown.QUESTIONS.items(), strict=True):
        assert line.startswith(f"- {question} (")
        pieces = re.findall(r"\*\*([a-z ]+)\*\*: (.+?)(?=; \*\*|\.$)", line)
        assert len(pieces) == len(wanted)
        for (outcome, piece), (claim, what) in zip(pieces, wanted, strict=True):
            assert piece.startswith(f"{what}: ")
            assert piece in claims.loc[claim, "evidence"].split("; ")
            assert told_sides([piece]) in ([outcome], ["?"])
            assert f"scale {claims.loc[claim, 'scale']})?" in line
            assert claim in line


def test_an_outcome_is_the_side_of_the_interval():
    assert markdown.outcome(Evidence("gain", Interval(2.0, 1.0, 3))) == "yes"
    assert markdown.outcome(Evidence("gain", Interval(2.0, 3.0, 3))) == "not decided"
    assert markdown.outcome(Evidence("gain", Bootstrap(-2.0, -3.0, -0.1))) == "no"
    assert markdown.outcome(Evidence("gain", None)) == "not run"


def test_what_was_not_run_is_told_so():
    found = {claim: ([], None) for claim in RULES}
    wanted = [pair for pairs in markdown.QUESTIONS.values() for pair in pairs]
    assert markdown.answers(found).count("**not run**: ") == len(wanted)
    assert "scale" not in markdown.answers(found)
    assert markdown.tally(found) == (
        "0 differences: 0 yes, 0 not decided, 0 no, 0 not run; only yes for no claim"
    )


def test_the_results_page_tells_the_verdict_of_every_claim(root):
    verdicts = pd.read_csv(root / "reports" / "claims.csv").set_index("id")
    page = (root / "reports" / "README.md").read_text()
    told = {
        claim: (verdict, scale)
        for claim, verdict, scale in re.findall(
            r"^\| (C\d+) \|.*\| ([a-z ]+), ([a-z]+) \|$", page, re.MULTILINE
        )
    }
    assert told == {claim: (row["verdict"], row["scale"]) for claim, row in verdicts.iterrows()}
    parts = dict(re.findall(r"`([a-z ]+)` \d+ \(([C0-9, ]+)\)", page))
    assert {i: verdict for verdict, ids in parts.items() for i in ids.split(", ")} == verdicts[
        "verdict"
    ].to_dict()
    standing = next(line for line in page.splitlines() if line.startswith("`"))
    assert [int(n) for n in re.findall(r"` (\d+) ", standing)] == sorted(verdicts["verdict"].value_counts())


def test_the_results_page_holds_the_tables(root, committed):
    page = (root / "reports" / "README.md").read_text()
    table = markdown.tables(pd.read_csv(root / "reports" / "ledger.csv"), committed[0])
    assert f"\n\n{table}\n" in page
    for benchmark in ("imagenet_lt", "places_lt", "nicopp"):
        assert f"| {benchmark} |" in table
    assert "| LDM-FG (Entropy) | 64.7 | " in table
    assert "| LDM (txt, img, dropout) | - | " in table
    assert ", amount" not in table


def test_verdicts_are_told_with_their_claims_the_rarest_first():
    verdicts = pd.DataFrame(
        {"id": ["C1", "C2", "C3"], "verdict": ["does not hold", "reproduced", "does not hold"]}
    )
    assert markdown.standing(verdicts) == "`reproduced` 1 (C2), `does not hold` 2 (C1, C3)"


def test_gains_are_means_over_seeds_of_what_was_run():
    mean = {"DDPM:minority_accuracy": [60, 61], "DDPM-FG (Entropy):minority_accuracy": [80, 80]}
    rows = tidy("toy_2d", **mean)
    assert markdown.gains(rows) == {"c15": "60.5 % -> 80.0 %"}

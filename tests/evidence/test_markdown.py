import re

import pandas as pd
import pytest
from scipy.special import stdtrit
from tiny_results import tidy

from fgsynth.evaluate import tables
from fgsynth.evidence import markdown
from fgsynth.evidence.ledger import Printed, ledger
from fgsynth.evidence.pieces import Found
from fgsynth.evidence.questions import README
from fgsynth.evidence.verdicts import claims, pieces_of
from fgsynth.utils.blocks import with_block

MARKDOWN = """\
| imagenet_lt | overall, printed | overall, ours (mini) | few, printed | few, ours (mini) |
| --- | ---: | ---: | ---: | ---: |
| LDM (txt, img, dropout) | - | 51.0 (n = 2) | - | 20.0 (n = 2) |
| ERM | 43.4 | 50.0 (n = 2) | 8.2 | 12.0 (n = 2) |

| nicopp | average accuracy, printed | average accuracy, ours (paper) | worst group accuracy, printed \
| worst group accuracy, ours (paper) |
| --- | ---: | ---: | ---: | ---: |
| Decouple-cRT | 85.2 | 60.0 (n = 2) | 43.3 | 30.0 (n = 2) |"""


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
    book = ledger(Printed(root / "data" / "paper"), rows)
    assert markdown.tables(book, rows) == MARKDOWN
    assert markdown.tables(book, rows[rows["benchmark"] == "ablations"]) == ""


@pytest.fixture(scope="module")
def committed(root):
    """Results and comparisons as they are committed."""
    reports, paper = root / "reports", root / "data" / "paper"
    return Found(tables.read_all(reports), tables.read_comparisons(reports), paper)


def test_the_readme_is_what_the_results_give(root, committed):
    pieces = pieces_of(committed)
    readme = (root / "README.md").read_text()
    blocks = markdown.blocks(committed, pieces, claims(committed.paper, pieces))
    assert set(blocks) == {"tally", "answers", "as_printed", "with_controls"}
    for mark, block in blocks.items():
        assert readme.count(f"<!--{mark}-->") == readme.count(f"<!--/{mark}-->") == 1
        assert with_block(readme, mark, block) == readme


def test_the_tally_counts_the_pieces(root):
    outcomes = pd.read_csv(root / "reports" / "pieces.csv")["outcome"].value_counts()
    _, told, _ = re.split("<!--/?tally-->", (root / "README.md").read_text())
    total, each = told.split(" differences: ")
    counts = {name: int(n) for n, name in (part.split(" ", 1) for part in each.split(", "))}
    assert int(total) == outcomes.sum() == sum(counts.values())
    assert {name: n for name, n in counts.items() if n} == outcomes.to_dict()


def test_every_answer_is_what_the_results_give(root):
    """From the stored files by hand, without the code that writes it."""
    rows = pd.read_csv(root / "reports" / "results.csv")
    rows = rows[rows["benchmark"] == "toy_2d"]
    scale = "evening" if "evening" in set(rows["scale"]) else "mini"
    rows = rows[rows["scale"] == scale]
    of = rows[rows["metric"] == "minority_accuracy"].pivot(index="seed", columns="method", values="value")
    difference = of["DDPM-FG (Entropy)"] - of["DDPM"]
    half = stdtrit(len(difference) - 1, 0.975) * difference.std() / len(difference) ** 0.5
    shown = f"{difference.mean():+.1f} [{difference.mean() - half:+.1f}, {difference.mean() + half:+.1f}]"
    _, told, _ = re.split("<!--/?answers-->", (root / "README.md").read_text())
    lines = told.strip().splitlines()
    assert lines[1].endswith(f": the plane minority **yes** {shown} ({scale}).")
    assert len(lines) == len(README) == 5
    assert [line[2:].split(": ")[0] for line in lines] == [one.text for one in README]


def test_what_was_not_run_is_told_so(root):
    nothing = Found(tidy("b", ERM=[1]), pd.DataFrame(columns=tables.COMPARED), root / "data" / "paper")
    wanted = [asked for one in README for asked in one.asked]
    assert " ".join(markdown.answers(nothing)).count("**not run**") == len(wanted)
    assert "(" not in " ".join(markdown.answers(nothing)).replace("(s)", "")
    assert markdown.tally({}) == (
        "0 differences: 0 supports, 0 contradicts, 0 undecided, 0 out of range, 0 not run"
    )


def test_the_results_page_tells_both_lines_of_every_claim(root):
    verdicts = pd.read_csv(root / "reports" / "claims.csv").set_index("id")
    page = (root / "reports" / "README.md").read_text()
    told = re.findall(
        r"^\| \[(C\d+)\]\(#c\d+\) \|.*\| ([a-z ]+) \| ([a-z ]+) \| (.+) \|$", page, re.MULTILINE
    )
    columns = ["as_printed", "with_controls", "experiment"]
    assert {c: rest for c, *rest in told} == {c: list(row[columns]) for c, row in verdicts.iterrows()}
    pieces = pd.read_csv(root / "reports" / "pieces.csv")
    assert re.findall(r"^- \*\*([a-z ]+)\*\* \(([a-z]+), ([a-z0-9_:]+)\): ", page, re.MULTILINE) == list(
        pieces[["outcome", "role", "benchmark"]].itertuples(index=False, name=None)
    )


def test_the_results_page_holds_the_tables(root, committed):
    page = (root / "reports" / "README.md").read_text()
    table = markdown.tables(pd.read_csv(root / "reports" / "ledger.csv"), committed.results)
    assert f"\n\n{table}\n" in page
    for benchmark in ("imagenet_lt", "places_lt", "nicopp"):
        assert f"| {benchmark} |" in table
    assert "| LDM-FG (Entropy) | 64.7 | " in table
    assert "| LDM (txt, img, dropout) | - | " in table
    assert ", amount" not in table


def test_chance_is_told_of_the_intervals_that_can_decide(root):
    few, other = {"LDM-FG (Entropy):few": [60, 61, 62], "LDM (txt):few": [50, 51, 52]}, {"ERM:few": [1, 2, 3]}
    found = Found(
        tidy("imagenet_lt", **few, **other), pd.DataFrame(columns=tables.COMPARED), root / "data/paper"
    )
    told = " ".join(markdown.reading(found, pieces_of(found)))
    # ERM is at the floor; the difference to text alone belongs to one claim.
    assert "Of 1 different ones within range, rows and controls among them, 1 leave out 0" in told
    assert "is under 5 % or both are over 90 %" in told
    assert not re.search(r"^- |\n", "".join(markdown.reading(found, {})))


def test_verdicts_are_told_with_their_claims_the_rarest_first():
    verdicts = pd.DataFrame({"id": ["C1", "C2", "C3"], "as_printed": ["mixed", "supported", "mixed"]})
    assert markdown.standing(verdicts, "as_printed") == "`supported` 1 (C2), `mixed` 2 (C1, C3)"

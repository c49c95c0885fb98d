import html.parser
import re
import shutil

import pandas as pd
import pytest

from fgsynth.cost import cards
from fgsynth.evaluate import tables
from fgsynth.evidence import report
from fgsynth.evidence.ledger import ledger
from fgsynth.utils.errors import UserError

MARKS = ("<!--ledger-->", "<!--/ledger-->")


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.targets, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.targets += [value for name, value in attrs if name in ("href", "src")]


@pytest.fixture
def built(checkout, root):
    shutil.copytree(root / "reports", checkout / "reports")
    report.build(checkout)
    return checkout / "reports"


def test_the_committed_report_is_what_its_inputs_give(built, root):
    for name in ("results.csv", "ledger.csv", "claims.csv", "index.html", "metrics/report.json"):
        assert (built / name).read_text() == (root / "reports" / name).read_text(), name


def test_the_page_needs_no_network_and_no_link_is_broken(built):
    links = Links()
    page = (built / "index.html").read_text()
    links.feed(page)
    assert "script" not in links.tags
    assert 'name="viewport"' in page
    for target in links.targets:
        if target.startswith("#"):
            assert f'id="{target[1:]}"' in page
        else:
            assert (built / target).is_file(), target
    drawn = {str(p.relative_to(built)) for p in built.glob("figures/*/*.png")}
    assert {t for t in links.targets if t.endswith(".png")} == drawn


def test_the_page_shows_every_claim_number_and_verdict(built):
    page = (built / "index.html").read_text()
    claims, book = pd.read_csv(built / "claims.csv"), pd.read_csv(built / "ledger.csv")
    for claim_id in claims["id"]:
        assert f'id="{claim_id}"' in page
    for row in book["row"]:
        assert row.replace("&", "&amp;") in page
    assert "reproduced" in page


def test_the_page_shows_the_cost_of_guidance_and_its_machine(built):
    page = (built / "index.html").read_text()
    cost = (built / "benchmark" / "cost.txt").read_text()
    assert "FG entropy, cheap, every 5th" in cost
    assert cost.rstrip("\n") in page


def test_without_any_results_everything_is_not_run(checkout):
    report.build(checkout)
    book = pd.read_csv(checkout / "reports" / "ledger.csv")
    assert (book["verdict"] == "not run").all()
    assert (checkout / "reports" / "index.html").read_text().count("not run") > 10


def test_a_damaged_results_file_is_named(checkout):
    folder = checkout / "reports" / "results"
    folder.mkdir(parents=True)
    (folder / "toy_2d.csv").write_text("scale,benchmark\nmini,toy_2d\n")
    with pytest.raises(UserError, match=r"toy_2d\.csv: columns"):
        report.build(checkout)
    assert not (checkout / "reports" / "index.html").exists()


def tidy(benchmark, scale="mini", **values):
    """values: method, or method and metric with a colon between -> one number per seed."""
    keys = {key: (*key.split(":"), "overall")[:2] for key in values}
    return pd.DataFrame(
        [
            dict(scale=scale, benchmark=benchmark, method=keys[key][0], seed=seed, metric=keys[key][1],
                 value=value, split="final", selection="last epoch")
            for key, per_seed in values.items()
            for seed, value in enumerate(per_seed)
        ]
    )  # fmt: skip


MARKDOWN = """\
| imagenet_lt | overall, printed | overall, ours (mini) | few, printed | few, ours (mini) |
| --- | ---: | ---: | ---: | ---: |
| LDM (txt, img, dropout) | - | 51.0 ± 12.7 | - | 20.0 ± 0.0 |
| ERM | 43.4 | 50.0 ± 0.0 | 8.2 | 12.0 ± 0.0 |

| nicopp | average accuracy, printed | average accuracy, ours (paper) | worst group accuracy, printed \
| worst group accuracy, ours (paper) |
| --- | ---: | ---: | ---: | ---: |
| CRT | 85.2 | 60.0 ± 0.0 | 43.3 | 30.0 ± 0.0 |"""


def test_markdown_shows_what_was_run_of_tables_1_to_3_beside_the_printed_numbers(root):
    same, fg = "LDM (txt, img, dropout)", "LDM-FG (Entropy)"
    swept = {f"{fg}, {what}": [1, 1] for what in ("amount 0.125", "weight 0.0", "amount 1.0")}
    crt = {"CRT:average_accuracy": [60, 60], "CRT:worst_group_accuracy": [30, 30]}
    few = {f"{same}:few": [20, 20], "ERM:few": [12, 12], "ERM:many": [70, 70]}
    rows = pd.concat(
        [
            tidy("imagenet_lt", **{same: [50, 52]}, ERM=[50, 50], **few, **swept),
            tidy("nicopp", "paper", **crt, **{"LDM FG (Entropy), w 0.1:average_accuracy": [1, 1]}),
            tidy("nicopp", "mini", **{key: [9, 9] for key in crt}),
            tidy("ablations", ERM=[1, 1]),
        ]
    )
    book = ledger(root / "data" / "paper", rows)
    assert report.markdown(book, rows) == MARKDOWN
    assert report.markdown(book, rows[rows["benchmark"] == "ablations"]) == ""


def test_only_what_stands_between_the_marks_is_replaced():
    start, end = MARKS
    once = report.with_block(f"before\n\n{start}\nold | table\n{end}\n\nafter\n", "ledger", "| new |")
    assert once == f"before\n\n{start}\n\n| new |\n\n{end}\n\nafter\n"
    assert report.with_block(once, "ledger", "| new |") == once
    for unmarked in ("no marks\n", f"{end} the wrong way {start}", f"only {start}", f"only {end}"):
        assert report.with_block(unmarked, "ledger", "| new |") == unmarked


@pytest.fixture
def with_results(checkout):
    folder = checkout / "reports" / "results"
    folder.mkdir(parents=True)
    rows = tidy("imagenet_lt", **{"ERM": [50.5, 50.5], "ERM:few": [12.5, 12.5]})
    (folder / "imagenet_lt.csv").write_text(tables.to_csv(rows))
    (checkout / "README.md").write_text("# A title\n\n{}\n{}\n\nAn end.\n".format(*MARKS))
    return checkout


def test_the_readme_is_given_the_table_and_keeps_its_text(with_results):
    report.build(with_results)
    readme, reports = with_results / "README.md", with_results / "reports"
    table = report.markdown(pd.read_csv(reports / "ledger.csv"), pd.read_csv(reports / "results.csv"))
    assert table.endswith("\n| ERM | 43.4 | 50.5 ± 0.0 | 8.2 | 12.5 ± 0.0 |")
    start, end = MARKS
    assert readme.read_text() == f"# A title\n\n{start}\n\n{table}\n\n{end}\n\nAn end.\n"
    first = readme.read_bytes()
    report.build(with_results)
    assert readme.read_bytes() == first


def test_comparisons_reach_the_claims(with_results):
    folder = with_results / "reports" / "comparisons"
    folder.mkdir()
    pair = dict(scale="mini", benchmark="imagenet_lt", method="LDM-FG (Entropy)", metric="overall",
                reference="LDM-FG (Combined)", mean=2, low=0.5, high=3.5, seeds=3, split="final")  # fmt: skip
    (folder / "imagenet_lt.csv").write_text(tables.comparisons_to_csv(pd.DataFrame([pair])))
    report.build(with_results)
    reports = with_results / "reports"
    row = pd.read_csv(reports / "claims.csv").set_index("id").loc["C14"]
    assert (row["verdict"], row["scale"], row["stage"]) == ("direction holds", "mini", "imagenet_lt")
    assert row["evidence"] == "overall, points over Combined: +2.0 [+0.5, +3.5]"
    assert row["evidence"] in (reports / "index.html").read_text()


def test_the_numbers_in_the_readme_are_those_of_the_results(root):
    rows = pd.read_csv(root / "reports" / "results.csv")
    mean = rows.groupby(["benchmark", "method", "metric"])["value"].mean()
    readme = (root / "README.md").read_text()
    for mark, benchmark, metric, methods in (
        ("c15", "toy_2d", "minority_accuracy", ("unguided", "entropy")),
        ("c7", "ablations", "recognised", ("text", "text and image")),
        ("few", "imagenet_lt_features", "few", ("balanced softmax", "sampler chosen on validation")),
    ):
        expected = " -> ".join(f"{mean[benchmark, method, metric]:.1f} %" for method in methods)
        assert f"<!--{mark}-->{expected}<!--/{mark}-->" in readme


def test_the_readme_tells_the_verdict_of_every_claim(root):
    verdicts = pd.read_csv(root / "reports" / "claims.csv").set_index("id")["verdict"]
    _, told, _ = re.split("<!--/?verdicts-->", (root / "README.md").read_text())
    parts = dict(re.findall(r"`([a-z ]+)` \d+ \(([C0-9, ]+)\)", told))
    assert {i: verdict for verdict, ids in parts.items() for i in ids.split(", ")} == verdicts.to_dict()
    assert [int(n) for n in re.findall(r"` (\d+) ", told)] == sorted(verdicts.value_counts())


def test_the_report_writes_the_numbers_into_the_readme(with_results):
    readme = with_results / "README.md"
    readme.write_text("from <!--c15-->0 %<!--/c15--> by entropy; <!--c7-->1 %<!--/c7-->\n")
    rows = tidy("toy_2d", **{"unguided:minority_accuracy": [60, 61], "entropy:minority_accuracy": [80, 80]})
    (with_results / "reports" / "results" / "toy_2d.csv").write_text(tables.to_csv(rows))
    report.build(with_results)
    # What was not run stays as it stands.
    assert (
        readme.read_text()
        == "from <!--c15-->60.5 % -> 80.0 %<!--/c15--> by entropy; <!--c7-->1 %<!--/c7-->\n"
    )


def test_the_report_writes_the_verdicts_into_the_readme(with_results):
    readme = with_results / "README.md"
    readme.write_text("claims: <!--verdicts-->old<!--/verdicts-->.\n")
    report.build(with_results)
    verdicts = pd.read_csv(with_results / "reports" / "claims.csv")
    told = f"<!--verdicts-->{report.standing(verdicts)}<!--/verdicts-->"
    assert readme.read_text() == f"claims: {told}.\n"


def test_verdicts_are_told_with_their_claims_the_rarest_first():
    verdicts = pd.DataFrame(
        {"id": ["C1", "C2", "C3"], "verdict": ["does not hold", "reproduced", "does not hold"]}
    )
    assert report.standing(verdicts) == "`reproduced` 1 (C2), `does not hold` 2 (C1, C3)"


def test_the_table_in_the_readme_is_made_from_the_ledger(root):
    book = pd.read_csv(root / "reports" / "ledger.csv")
    table = report.markdown(book, pd.read_csv(root / "reports" / "results.csv"))
    readme = (root / "README.md").read_text()
    assert all(readme.count(mark) == 1 for mark in MARKS)
    assert report.with_block(readme, "ledger", table) == readme
    for benchmark in ("imagenet_lt", "places_lt", "nicopp"):
        assert f"| {benchmark} |" in table
    assert "| LDM-FG (Entropy) | 64.7 | " in table
    assert "| LDM (txt, img, dropout) | - | " in table
    assert ", amount" not in table


def test_damaged_comparisons_are_named(checkout):
    folder = checkout / "reports" / "comparisons"
    folder.mkdir(parents=True)
    (folder / "nicopp.csv").write_text("scale,benchmark\nmini,nicopp\n")
    with pytest.raises(UserError, match=r"nicopp\.csv: columns"):
        report.build(checkout)


def test_the_page_shows_the_cost_at_true_size(built, root):
    page = (built / "index.html").read_text()
    table = pd.read_csv(root / "reports" / "true_size" / "true_size.csv")
    assert page.count("<td>bfloat16</td>") == (table["precision"] == "bfloat16").sum() > 0
    assert f"<td>{table['seconds'].iloc[0]:.3g}</td>" in page
    assert "<td>nan</td>" not in page


def test_the_cost_tables_in_the_readme_are_made_from_the_counts(root):
    readme, blocks = (root / "README.md").read_text(), dict(cards.markdown(root))
    assert list(blocks) == ["batches", "seconds", "hours"]
    for mark, block in blocks.items():
        assert readme.count(f"<!--{mark}-->") == 1
        assert report.with_block(readme, mark, block) == readme

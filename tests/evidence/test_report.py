import html.parser
import json
import re
import shutil
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
import yaml
from imports import closure, outside
from tiny_results import tidy

from fgsynth.evaluate import tables
from fgsynth.evidence import report
from fgsynth.evidence.pieces import STORED
from fgsynth.evidence.provenance import RUN
from fgsynth.utils.errors import UserError

read_text = cache(Path.read_text)


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
    tables = ("results.csv", "ledger.csv", "order.csv", "pieces.csv", "claims.csv")
    for name in (*tables, "index.html", "README.md", "report.json"):
        assert (built / name).read_text() == (root / "reports" / name).read_text(), name


def test_dvc_follows_every_file_that_the_report_writes(checkout, root):
    report.build(checkout)
    made = {str(p.relative_to(checkout)) for p in (checkout / "reports").glob("*.*")}
    stage = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]["report"]
    assert made == {name for one in (*stage["outs"], *stage["metrics"]) for name in one}


def test_the_page_needs_no_network_and_no_link_is_broken(built):
    links = Links()
    page = (built / "index.html").read_text()
    links.feed(page)
    assert "script" not in links.tags
    assert 'name="viewport"' in page
    for target in links.targets:
        if target.startswith("#"):
            assert f'id="{target[1:]}"' in page
            continue
        name, _, anchor = target.partition("#")
        assert (built / name).is_file(), target
        assert not anchor or f'id="{anchor}"' in read_text(built / name), target
    # Of each stage at the largest scale that it was run at.
    largest = {p.parts[-2]: p for scale in ("mini", "evening") for p in built.glob(f"{scale}/*/figures")}
    drawn = {str(p.relative_to(built)) for of in largest.values() for p in of.glob("*.png")}
    assert {t for t in links.targets if t.endswith(".png")} == drawn


def test_the_page_shows_every_claim_number_and_verdict(built):
    page = (built / "index.html").read_text()
    claims, book = pd.read_csv(built / "claims.csv"), pd.read_csv(built / "ledger.csv")
    for claim_id in claims["id"]:
        assert f'id="{claim_id}"' in page
    for row in book["row"]:
        assert row.replace("&", "&amp;") in page
    pieces = pd.read_csv(built / "pieces.csv")
    assert page.count('<span class="verdict supports">') == (pieces["outcome"] == "supports").sum() > 0


def test_every_piece_leads_to_the_cell_that_stored_it(built):
    pieces = pd.read_csv(built / "pieces.csv")
    assert (pieces["page"].notna() == pieces["mean"].notna()).all()
    cells = {}
    for page in pieces["page"].dropna().unique():
        name, _, anchor = page.partition("#")
        executed = json.loads(read_text((built / name).with_suffix(".ipynb")))["cells"]
        cells[page] = next("".join(c["source"]) for c in executed if f"cell-id={c['id']}" == anchor)
        assert f'id="{anchor}"' in read_text(built / name)
    stored = pieces[pieces["interval"] == STORED]
    assert all("out.comparisons(" in cells[page] for page in stored["page"])
    assert all("out.results(" in cells[page] for page in pieces["page"].drop(stored.index).dropna())
    told = (built / "README.md").read_text()
    assert all(f"]({page})" in told for page in cells)


def test_the_commit_is_what_the_runner_wrote_down(built, checkout):
    pieces = pd.read_csv(built / "pieces.csv")
    (built / "evening" / "toy_2d" / RUN).write_text('{"commit": "abc-dirty"}')
    (built / "mini" / "nicopp" / RUN).write_text('{"commit": ""}')  # ran without git
    report.build(checkout)
    again = pd.read_csv(built / "pieces.csv")
    plane, group = again["stage"] == "toy_2d", again["stage"] == "nicopp"
    assert set(again.loc[plane, "commit"]) == {"abc-dirty"}
    assert again.loc[group, "commit"].isna().all()
    pd.testing.assert_frame_equal(again[~plane & ~group], pieces[~plane & ~group], check_dtype=False)


def test_the_page_shows_the_cost_of_guidance_and_its_machine(built):
    page = (built / "index.html").read_text()
    cost = (built / "benchmark" / "cost.txt").read_text()
    assert "LDM-FG (Entropy), cheap, every 5th" in cost
    assert cost.rstrip("\n") in page


def test_without_any_results_everything_is_not_run(checkout):
    report.build(checkout)
    book = pd.read_csv(checkout / "reports" / "ledger.csv")
    assert (book["status"] == "not run").all()
    assert (checkout / "reports" / "index.html").read_text().count("not run") > 10


def test_a_damaged_results_file_is_named(checkout):
    folder = checkout / "reports" / "mini" / "toy_2d"
    folder.mkdir(parents=True)
    (folder / "results.csv").write_text("scale,benchmark\nmini,toy_2d\n")
    with pytest.raises(UserError, match=r"toy_2d/results\.csv: columns"):
        report.build(checkout)
    assert not (checkout / "reports" / "index.html").exists()


@pytest.fixture
def with_results(checkout):
    folder = checkout / "reports" / "mini" / "imagenet_lt"
    folder.mkdir(parents=True)
    rows = tidy("imagenet_lt", **{"ERM": [50.5, 50.5], "ERM:few": [12.5, 12.5]})
    (folder / "results.csv").write_text(tables.to_csv(rows.drop(columns="draw")))
    return checkout


def test_comparisons_reach_the_claims(with_results):
    folder = with_results / "reports" / "mini" / "imagenet_lt"
    pair = dict(scale="mini", benchmark="imagenet_lt", method="LDM-FG (Entropy)", metric="overall",
                reference="LDM-FG (Combined)", mean=2, low=0.5, high=3.5, seeds=3, split="final")  # fmt: skip
    (folder / "comparisons.csv").write_text(tables.comparisons_to_csv(pd.DataFrame([pair])))
    report.build(with_results)
    reports = with_results / "reports"
    row = pd.read_csv(reports / "claims.csv").set_index("id").loc["C14"]
    assert (row["as_printed"], row["scale"]) == ("supported", "mini")
    line = pd.read_csv(reports / "pieces.csv").query("claim == 'C14' and role == 'printed'").iloc[0]
    assert line[["mean", "low", "high", "outcome"]].tolist() == [2, 0.5, 3.5, "supports"]
    assert "+2.0 [+0.5, +3.5]" in (reports / "index.html").read_text()


def test_what_is_run_reaches_the_readmes_and_the_rest_of_them_stays(with_results):
    readme = with_results / "README.md"
    readme.write_text("# A title\n\nSo far: <!--tally-->old<!--/tally-->. <!--other-->1 %<!--/other-->\n")
    report.build(with_results)
    told = readme.read_text()
    assert re.fullmatch(
        r"# A title\n\nSo far: <!--tally-->\d+ differences: 0 supports, .*, \d+ not run<!--/tally-->\. "
        r"<!--other-->1 %<!--/other-->\n",
        told,
    )
    page = (with_results / "reports" / "README.md").read_text()
    assert "\n| ERM | 43.4 | 50.5 ± 0.0 | 8.2 | 12.5 ± 0.0 |\n" in page
    report.build(with_results)
    assert readme.read_text() == told


def test_damaged_comparisons_are_named(checkout):
    folder = checkout / "reports" / "mini" / "nicopp"
    folder.mkdir(parents=True)
    (folder / "comparisons.csv").write_text("scale,benchmark\nmini,nicopp\n")
    with pytest.raises(UserError, match=r"nicopp/comparisons\.csv: columns"):
        report.build(checkout)


def test_the_page_shows_the_cost_at_true_size(built, root):
    page = (built / "index.html").read_text()
    table = pd.read_csv(root / "reports" / "true_size" / "true_size.csv")
    assert page.count("<td>bfloat16</td>") == (table["precision"] == "bfloat16").sum() > 0
    assert f"<td>{table['seconds'].iloc[0]:.3g}</td>" in page
    assert "<td>nan</td>" not in page


def test_the_report_needs_no_room_that_trains_generates_or_prices(root):
    used = closure(root, {"fgsynth/evidence/report.py"})
    assert {"fgsynth/evidence/rules.py", "fgsynth/evidence/markdown.py"} <= used
    assert outside(used, ("utils", "config", "data", "evaluate", "evidence")) == set()
    assert len(used) <= 20

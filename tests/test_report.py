import html.parser
import shutil

import pandas as pd
import pytest

from fgsynth import report
from fgsynth.errors import UserError


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


def test_the_numbers_in_the_readme_are_those_of_the_results(root):
    rows = pd.read_csv(root / "reports" / "results.csv")
    mean = rows.groupby(["benchmark", "method", "metric"])["value"].mean()
    readme = (root / "README.md").read_text()
    for mark, benchmark, metric, methods in (
        ("c15", "toy_2d", "minority_accuracy", ("unguided", "entropy")),
        ("c7", "ablations", "recognised", ("text", "text and image")),
        ("few", "latent_probe", "few", ("balanced softmax", "class Gaussian, balanced softmax")),
    ):
        expected = " -> ".join(f"{mean[benchmark, method, metric]:.1f} %" for method in methods)
        assert f"<!--{mark}-->{expected}<!--/{mark}-->" in readme

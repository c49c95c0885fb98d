import html
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

from fgsynth.config.stages import NOTEBOOKS
from fgsynth.evaluate import tables
from fgsynth.evaluate.metrics import interval
from fgsynth.evidence import RUN, notebooks, page, report
from fgsynth.evidence.markdown import TITLES
from fgsynth.evidence.notebooks import executed
from fgsynth.evidence.pieces import BY_DRAW, STORED
from fgsynth.evidence.provenance import SHOWS, SHOWS_DRAW, STORES
from fgsynth.evidence.questions import README, TOPICS
from fgsynth.utils.errors import UserError

read_text = cache(Path.read_text)


class Links(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.targets, self.tags, self.alts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = dict(attrs)
        self.targets += [found[name] for name in ("href", "src") if name in found]
        if tag == "img":
            self.alts.append(found.get("alt"))


@pytest.fixture(scope="module")
def built(tmp_path_factory, root):
    """The committed reports, built again; not to be changed."""
    folder = tmp_path_factory.mktemp("built")
    for name in ("data/paper", "reports"):
        shutil.copytree(root / name, folder / name)
    for name in ("params.yaml", "dvc.yaml", "dvc.lock", "README.md"):
        shutil.copy(root / name, folder)
    report.build(folder)
    return folder / "reports"


@pytest.fixture
def copy(built, tmp_path):
    """A copy of them, to be changed."""
    return shutil.copytree(built.parent, tmp_path / "copy") / "reports"


def written(reports):
    """What the report wrote, relative to reports/."""
    site = (path for path in (reports / "site").rglob("*") if path.is_file())
    return {str(path.relative_to(reports)) for path in (*reports.glob("*.*"), *site)}


def test_the_committed_report_is_what_its_inputs_give(built, root):
    assert written(built) == written(root / "reports")
    for name in written(built):
        assert (built / name).read_text() == (root / "reports" / name).read_text(), name


def test_dvc_follows_every_file_that_the_report_writes(checkout, root):
    report.build(checkout)
    made = {str(p.relative_to(checkout)) for p in (checkout / "reports").iterdir()}
    stage = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]["report"]
    assert made == {name for one in (*stage["outs"], *stage["metrics"]) for name in one}


def test_the_pages_need_no_network_every_link_resolves_and_every_image_has_a_text(built):
    pages = sorted((built / "site").rglob("*.html"))
    assert {path.stem for path in pages} >= set(page.PAGES)
    for path in pages:
        links = Links(read_text(path))
        assert 'name="viewport"' in read_text(path)
        assert all(links.alts), path
        for target in links.targets:
            if target.startswith("data:"):
                continue
            name, _, anchor = target.partition("#")
            file = (path.parent / name).resolve() if name else path
            assert file.is_file(), (path, target)
            assert not anchor or f'id="{anchor}"' in read_text(file), (path, target)


def test_the_site_is_light(built):
    files = [path for path in (built / "site").rglob("*") if path.is_file()]
    # Without pictures, which stand in the pages where a notebook had them inline.
    weight = {path: len(re.sub(r"data:image/[^\"]*|<svg.*?</svg>", "", read_text(path))) for path in files}
    assert sum(weight.values()) < 3_000_000
    assert max(weight.values()) < 500_000


def test_every_notebook_that_ran_has_a_page_between_its_neighbours(built):
    ran = executed(built)
    assert {one.scale for one in ran} >= {"mini"}
    assert {path.name for path in (built / "site/notebooks").glob("*.html")} == {one.page for one in ran}
    mini = [one for one in ran if one.scale == "mini"]
    assert [NOTEBOOKS[one.stage] for one in mini] == sorted(NOTEBOOKS.values())
    for before, one, after in zip(mini, mini[1:], mini[2:], strict=False):
        text = read_text(built / "site/notebooks" / one.page)
        assert text.count(f'rel="prev" href="{before.page}"') == 2
        assert text.count(f'rel="next" href="{after.page}"') == 2
        assert all(f'id="{cell["id"]}"' in text for cell in one.cells)


def test_a_notebook_of_a_draw_has_a_page_too(copy):
    shutil.copytree(copy / "mini" / "nicopp", copy / "evening" / "nicopp_2")
    pages = {one.page: one for one in executed(copy)}
    one = pages["evening-nicopp_2.html"]
    assert (one.stage, one.name) == ("nicopp", "06 nicopp, draw 2 (evening)")
    text = notebooks.render(one, executed(copy), ["C13"])
    assert "../../evening/nicopp_2/06_nicopp.ipynb" in text
    assert 'href="../claims.html#C13"' in text


def test_figures_have_captions_whose_claims_are_links(checkout):
    folder = checkout / "reports" / "mini" / "toy_2d"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "sweep.csv").write_text("")
    drawing = '<svg height="99pt" viewBox="0 0 {0} 99" width="{0}pt">'
    (folder / "figures" / "sweep.svg").write_text(drawing.format(792.5))
    told = {"alt": 'A "line".', "caption": "What it says (C15).", "figure": "sweep"}
    image = {"data": {"image/png": "aGk="}, "metadata": {"image/png": told}}
    inline = {"data": {"image/png": "aGk=\n"}, "metadata": {}}
    table = {"data": {"text/html": "<table><tr><th></th></tr><tr><td>1</td></tr></table>", "text/plain": "1"}}
    cells = [
        {"id": "a", "cell_type": "markdown", "source": ["# 01 · This & that\n", "\n", "so $x_0$ is"]},
        {"id": "b", "cell_type": "code", "source": ["'$y$'"], "outputs": [image, inline, table]},
        {"id": "c", "cell_type": "code", "source": ["1"], "outputs": [{"text": ["a < b"]}]},
    ]
    (folder / "01_toy_2d.ipynb").write_text(json.dumps({"cells": cells}))
    (one,) = executed(checkout / "reports")
    text = notebooks.render(one, [one], [])
    assert 'class="drawn large" src="../../mini/toy_2d/figures/sweep.svg"' in text  # scrolls on a phone
    (folder / "figures" / "sweep.svg").write_text(drawing.format(396))
    text = notebooks.render(one, [one], [])
    assert 'class="drawn" src="../../mini/toy_2d/figures/sweep.svg"' in text
    assert 'src="../../mini/toy_2d/figures/sweep.svg" alt="A &#34;line&#34;."' in text
    assert 'What it says (<a href="../claims.html#C15">C15</a>).' in text
    assert 'href="../../mini/toy_2d/figures/sweep.csv"' in text
    assert 'src="data:image/png;base64,aGk=" alt="Figure of 01 · This &amp; that"' in text
    assert "<tr><td></td></tr><tr><td>1</td></tr>" in text
    assert "a &lt; b" in text
    (svg,) = re.findall(r'<svg role="img" aria-label="(.*?)"', text)
    assert svg == "x_0"
    assert "$y$" in re.sub("<.*?>", "", text)


def test_the_pages_show_every_claim_number_and_outcome(built):
    claims, book = pd.read_csv(built / "claims.csv"), pd.read_csv(built / "ledger.csv")
    page_of = {name: read_text(built / "site" / f"{name}.html") for name in ("claims", "tables")}
    for claim_id in claims["id"]:
        assert f'id="{claim_id}"' in page_of["claims"]
    for row in book["row"]:
        assert row.replace("&", "&amp;") in page_of["tables"]
    pieces = pd.read_csv(built / "pieces.csv")
    shown = page_of["claims"].count('<span class="verdict supports">')
    assert shown == (pieces["outcome"] == "supports").sum() > 0
    assert page_of["claims"].count('class="strip ') == len(pieces) + pieces["mean"].notna().sum()


def test_the_first_page_answers_all_questions_and_names_what_is_compared(built):
    text = read_text(built / "site/index.html")
    answered = [one for of in TOPICS.values() for one in of]
    assert {one.text for one in answered} > {one.text for one in README}
    for question, asked, _ in answered:
        (answer,) = re.findall(f"<li><strong>{re.escape(question)}</strong>(.*?)</li>", text)
        for one in asked:
            assert all(name in answer for name in (one.method, one.reference, TITLES[one.benchmark]))


def test_figures_without_a_claim_of_their_own_lead_to_those_of_their_notebook(built):
    for one in executed(built):
        text = read_text(built / "site/notebooks" / one.page)
        captions = re.findall(r"<figcaption>(.*?)</figcaption>", text, re.DOTALL)
        assert len(captions) == text.count("<figure>")
        serves = "Claims that rest on its stage" in text
        assert all(not serves or "claims.html#C" in caption for caption in captions)


def test_every_number_of_ours_in_the_tables_leads_to_its_cell(built):
    book = pd.read_csv(built / "ledger.csv")
    ours = book.dropna(subset="ours")
    assert len(ours) > 100
    assert ours["page"].notna().all()
    text = read_text(built / "site/tables.html")
    assert all(text.count(f'href="../{target}"') == n for target, n in ours["page"].value_counts().items())


def lines(built, source):
    """What provenance names, as "file:1-3,7 file:5", read from there."""
    found = []
    for name, _, numbers in (one.rpartition(":") for one in source.split(" ")):
        ends = [list(map(int, one.split("-"))) for one in numbers.split(",")]
        wanted = [n - 2 for end in ends for n in range(end[0], end[-1] + 1)]
        found.append(pd.read_csv(built / name).iloc[wanted])
    return pd.concat(found)


def numbers_are_those_of_their_lines(built):
    book = pd.read_csv(built / "ledger.csv").dropna(subset="ours")
    for number in book.to_dict("records"):
        assert lines(built, number["source"])["value"].mean() == pytest.approx(number["ours"], rel=1e-4)
    pieces = pd.read_csv(built / "pieces.csv").dropna(subset="mean")
    assert (pieces["source"].notna() & pieces["selection"].notna() & pieces["split"].notna()).all()
    for piece in pieces[pieces["difference"].str.contains(": .* - ")].to_dict("records"):
        of = lines(built, piece["source"])
        if piece["interval"] == STORED:
            assert abs(of["mean"].item()) == pytest.approx(abs(piece["mean"]), rel=1e-4)
        else:
            wide = of.pivot(index="seed", columns="method", values="value")
            assert wide.shape[1] == 2
            assert not wide.isna().any(axis=None)
            mean = wide.diff(axis=1).mean().iloc[1]
            assert abs(mean) == pytest.approx(abs(piece["mean"]), rel=1e-3, abs=1e-4)


def test_the_lines_that_a_number_names_give_it(built):
    numbers_are_those_of_their_lines(built)


def test_every_piece_leads_to_a_cell_that_shows_or_stores_it(built):
    pieces = pd.read_csv(built / "pieces.csv")
    assert (pieces["page"].notna() == pieces["mean"].notna()).all()
    ran = {one.page: one for one in executed(built)}
    for piece in pieces.dropna(subset="page").to_dict("records"):
        name, _, anchor = piece["page"].partition("#")
        cell = next(c for c in ran[Path(name).name].cells if c["id"] == anchor)
        assert f'id="{anchor}"' in read_text(built / name)
        if piece["cell"] == STORES:
            call = "out.comparisons(" if piece["interval"] == STORED else "out.results("
            assert call in "".join(cell["source"])
        else:
            method, reference = piece["difference"].split(": ", 1)[1].rsplit(" - ", 1)
            told = html.unescape(json.dumps(cell["outputs"]))
            assert method in told
            assert reference in told
            near = (abs(float(x)) - abs(piece["mean"]) for x in re.findall(r"-?\d+\.\d+", told))
            assert piece["cell"] != SHOWS or any(abs(x) < 0.0051 for x in near)
    assert (pieces["cell"] == STORES).sum() < pieces["cell"].isin([SHOWS, SHOWS_DRAW]).sum()
    assert set(pieces["scale"][pieces["cell"] == SHOWS_DRAW]) <= {"evening"}
    told = (built / "README.md").read_text()
    assert all(f"]({where})" in told for where in pieces["page"].dropna())


def as_draw(reports, stage, draw):
    """A stage of scale mini, published as a draw of scale evening with other seeds and results."""
    folder = reports / "evening" / f"{stage}_{draw}"
    # The committed draw is of other rows.
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(reports / "mini" / stage, folder)
    for name in ("results", "comparisons"):
        rows = pd.read_csv(folder / f"{name}.csv").assign(scale="evening")
        if name == "results":
            # What differs from draw to draw differs from method to method.
            rows["seed"] += 1000 * draw
            rows["value"] += 0.01 * draw * rows["method"].str.len() * (rows["metric"] != "n_synthetic")
        rows.to_csv(folder / f"{name}.csv", index=False)


def test_draws_of_scale_evening_have_pages_figures_and_provenance(copy):
    for draw in range(3):
        for stage in ("imagenet_lt", "baselines"):
            as_draw(copy, stage, draw)
    report.build(copy.parent)
    numbers_are_those_of_their_lines(copy)
    pieces = pd.read_csv(copy / "pieces.csv")
    mine = pieces[(pieces["benchmark"] == "imagenet_lt") & pieces["mean"].notna()]
    assert set(mine["scale"]) == {"evening"}
    assert set(mine["interval"]) == {BY_DRAW}
    assert mine["smaller"].str.startswith("mini: ").any()
    for draw in range(3):
        page_of = read_text(copy / "site/notebooks" / f"evening-imagenet_lt_{draw}.html")
        assert f"../../evening/imagenet_lt_{draw}/figures/figure_12.svg" in page_of
        assert f"04 imagenet_lt, draw {draw} (evening)" in read_text(copy / "site/run.html")
        assert mine["source"].str.contains(f"evening/imagenet_lt_{draw}/results.csv:").all()
    fill_up = mine[mine["difference"].str.endswith(" - Fill-Up")].iloc[0]
    assert "evening/baselines_2/results.csv:" in fill_up["source"]
    first = mine.iloc[0]
    assert lines(copy, first["source"])["seed"].nunique() == 9
    claims, start = (read_text(copy / "site" / f"{name}.html") for name in ("claims", "index"))
    for text in (claims, start):
        assert 'href="../evening/imagenet_lt_2/results.csv"' in text
        assert 'href="../site/notebooks/evening-imagenet_lt_2.html#' in text
    assert "here: ImageNet-LT mini (other data, scale evening)" in read_text(copy / "site/tables.html")
    book = pd.read_csv(copy / "ledger.csv").query("table == 'table1_imagenet_lt'").dropna(subset="ours")
    assert set(book["scale"]) == {"evening"}
    assert set(book["seeds"]) == {3}  # draws, whose seeds are not independent
    few = book[(book["method"] == "ERM") & (book["column"] == "few")].iloc[0]
    of = lines(copy, few["source"])
    assert few["spread"] == pytest.approx(
        interval(of.groupby(of["seed"] // 1000)["value"].mean()).half_width, rel=1e-4
    )


def test_the_time_of_the_default_is_what_its_stages_took(copy):
    for i, path in enumerate(sorted((copy / "mini").glob(f"*/{RUN}"))):
        path.write_text(f'{{"commit": "", "seconds": {(70, 50)[i] if i < 2 else 0}}}')
    readme = copy.parent / "README.md"
    readme.write_text("In <!--minutes-->an hour<!--/minutes-->.\n")
    report.build(copy.parent)
    assert readme.read_text() == "In <!--minutes-->2 min<!--/minutes-->.\n"


def test_the_commit_is_what_the_runner_wrote_down_and_pages_of_what_is_gone_go(built, copy):
    pieces = pd.read_csv(built / "pieces.csv")
    (copy / "evening" / "toy_2d" / RUN).write_text('{"commit": "abc-dirty"}')
    (copy / "mini" / "nicopp" / RUN).write_text('{"commit": ""}')  # ran without git
    (copy / "site/notebooks/gone.html").write_text("of a notebook that is gone")
    report.build(copy.parent)
    assert not (copy / "site/notebooks/gone.html").exists()
    again = pd.read_csv(copy / "pieces.csv")
    plane, group = again["stage"] == "toy_2d", again["source"].str.startswith("mini/nicopp/", na=False)
    assert set(again.loc[plane, "commit"]) == {"abc-dirty"}
    assert group.any()
    assert again.loc[group, "commit"].isna().all()
    pd.testing.assert_frame_equal(again[~plane & ~group], pieces[~plane & ~group], check_dtype=False)


def test_the_page_shows_the_cost_of_guidance_and_its_machine(built):
    text = (built / "site/run.html").read_text()
    cost = (built / "benchmark" / "cost.txt").read_text()
    assert "LDM-FG (Entropy), cheap, every 5th" in cost
    assert cost.rstrip("\n") in text


def test_without_any_results_everything_is_not_run(checkout):
    report.build(checkout)
    book = pd.read_csv(checkout / "reports" / "ledger.csv")
    assert (book["status"] == "not run").all()
    assert (checkout / "reports/site/claims.html").read_text().count("not run") > 10


def test_a_damaged_results_file_is_named(checkout):
    folder = checkout / "reports" / "mini" / "toy_2d"
    folder.mkdir(parents=True)
    (folder / "results.csv").write_text("scale,benchmark\nmini,toy_2d\n")
    with pytest.raises(UserError, match=r"toy_2d/results\.csv: columns"):
        report.build(checkout)
    assert not (checkout / "reports" / "site").exists()


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
    assert "+2.0 [+0.5, +3.5]" in (reports / "site/claims.html").read_text()


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
    assert "\n| ERM | 43.4 | 50.5 (n = 2) | 8.2 | 12.5 (n = 2) |\n" in page
    report.build(with_results)
    assert readme.read_text() == told


def test_damaged_comparisons_are_named(checkout):
    folder = checkout / "reports" / "mini" / "nicopp"
    folder.mkdir(parents=True)
    (folder / "comparisons.csv").write_text("scale,benchmark\nmini,nicopp\n")
    with pytest.raises(UserError, match=r"nicopp/comparisons\.csv: columns"):
        report.build(checkout)


def test_the_page_shows_the_cost_at_true_size(built, root):
    text = (built / "site/run.html").read_text()
    table = pd.read_csv(root / "reports" / "true_size" / "true_size.csv")
    assert text.count("<td>bfloat16</td>") == (table["precision"] == "bfloat16").sum() > 0
    assert f"<td>{table['seconds'].iloc[0]:.3g}</td>" in text
    assert "<td>nan</td>" not in text


def test_the_report_needs_no_room_that_trains_generates_or_prices(root):
    used = closure(root, {"fgsynth/evidence/report.py"})
    assert {"fgsynth/evidence/rules.py", "fgsynth/evidence/markdown.py"} <= used
    assert outside(used, ("utils", "config", "data", "evaluate", "evidence")) == set()
    assert len(used) <= 32

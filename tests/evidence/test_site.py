"""The pages in a real browser; without a Chromium there is nothing to see them with."""

import json
from pathlib import Path

import browser
import pandas as pd
import pytest

from fgsynth.evidence import page

AXE = "tests/node_modules/axe-core/axe.min.js"
pytestmark = pytest.mark.skipif(browser.found() is None, reason="no Chromium is installed (apt: chromium)")

CONTRAST = (Path(__file__).parent / "contrast.js").read_text()
IMAGES = """Promise.all([...document.images].map((image) => {
  image.loading = "eager";
  return image.decode().then(() => image.alt !== "", () => false);
}))"""
"""Whether each image can be shown and has an alt text."""


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    opened = browser.Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def site(root):
    return root / "reports" / "site"


def pages(site):
    return [
        *(f"{name}.html" for name in page.PAGES),
        *(f"notebooks/{p.name}" for p in site.glob("notebooks/mini-*")),
    ]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_page_fits_reads_well_and_loads_without_an_error(tab, site, width, scheme):
    for name in pages(site):
        tab.open((site / name).as_uri(), width, scheme)
        assert tab.run("document.documentElement.scrollWidth") <= width, name
        assert tab.errors == [], name
        assert tab.run(CONTRAST) == [], name
        assert all(tab.run(IMAGES)), name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_mend(tab, site, root, scheme):
    if not (root / AXE).is_file():
        pytest.skip("axe-core is not installed (npm install --prefix tests axe-core)")
    for name in (f"{name}.html" for name in page.PAGES):
        tab.open((site / name).as_uri(), 1280, scheme)
        tab.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        tab.run((root / AXE).read_text() + "; null")
        found = tab.run(
            "axe.run().then((r) => r.violations.map((v) => [v.id, v.nodes.map((n) => n.html.slice(0, 200))]))"
        )
        assert found == [], name


def test_a_heading_sorts_its_table_and_the_filter_hides_rows(tab, site, root):
    tab.open((site / "tables.html").as_uri())
    table = "document.querySelector('#table1_imagenet_lt + div table')"
    column = f"[...{table}.tBodies[0].rows].map((row) => row.cells[5].dataset.value)"
    before = list(map(float, tab.run(column)))
    tab.run(f"{table}.tHead.querySelectorAll('button')[5].click()")
    assert list(map(float, tab.run(column))) == sorted(before, reverse=True) != before
    assert tab.run(f"{table}.tHead.rows[0].cells[5].getAttribute('aria-sort')") == "descending"
    tab.run(f"{table}.tHead.querySelectorAll('button')[5].click()")
    assert list(map(float, tab.run(column))) == sorted(before)
    book = pd.read_csv(root / "reports/ledger.csv").query("table == 'table1_imagenet_lt' and column == 'few'")
    assert sorted(before) == pytest.approx(sorted(book["ours"].fillna(book["printed"])), rel=1e-4)
    tab.run(
        "const f = document.getElementById('filter'); f.value = 'ldm-fg'; f.dispatchEvent(new Event('input'))"
    )
    shown = tab.run(
        f"[...{table}.tBodies[0].rows].filter((r) => !r.hidden).map((r) => r.cells[0].textContent)"
    )
    assert shown
    assert all("LDM-FG" in name for name in shown)


def test_claims_are_chosen_by_verdict_unfold_and_are_reached_by_their_address(tab, site, root):
    tab.open(f"{(site / 'claims.html').as_uri()}#C15")
    assert tab.run("document.getElementById('C15').open")
    assert not tab.run("document.getElementById('C1').open")
    verdicts = pd.read_csv(root / "reports/claims.csv")["as_printed"]
    tab.run(f"const s = document.getElementById('verdict'); s.value = {json.dumps(verdicts[0])}")
    tab.run("s.dispatchEvent(new Event('change'))")
    shown = tab.run("[...document.querySelectorAll('details.claim')].filter((d) => !d.hidden).length")
    assert shown == (verdicts == verdicts[0]).sum()


SET = """(([id, values]) => {{ const form = document.getElementById(id);
  for (const [name, value] of Object.entries(values)) form.querySelector(`[name="${{name}}"]`).value = value;
  form.dispatchEvent(new Event("input", {{ bubbles: true }})); }})({})"""


def frames(root):
    (path,) = [
        p
        for scale in ("evening", "mini")
        for p in (root / "reports" / scale).glob("toy_2d/figures/frames.csv")
    ][:1]
    return pd.read_csv(path)


def test_the_sliders_of_the_plane_show_the_frame_that_they_stand_at(tab, site, root):
    tab.open((site / "plane.html").as_uri())
    table = frames(root)
    scales = sorted(table["w"].unique())
    row = table[(table["criterion"] == "loss") & (table["every"] == 5) & (table["w"] == scales[-1])].iloc[0]
    tab.run(SET.format(json.dumps(["plane", {"criterion": "loss", "every": 5, "w": len(scales) - 1}])))
    told = tab.run("document.getElementById('measures').value")
    assert f"rare modes: {row['minority_share']:.1f} %" in told
    assert f"on the data: {row['on_support']:.1f} %" in told
    x, y = map(int, row["points"].split()[:2])
    assert tab.run("document.querySelector('#points circle').style.transform") == f"translate({x}px, {-y}px)"
    assert tab.run("document.querySelectorAll('#points circle').length") == len(row["points"].split()) // 2


def test_the_slider_of_the_gallery_shows_the_images_of_its_scale(tab, site, root):
    tab.open((site / "gallery.html").as_uri())
    assert (
        tab.run("document.querySelector('#gallery output').value") == "0.03"
    )  # the first look shows feedback
    plain, guided = (
        f"document.querySelector('#tiles tr').cells[{i}].querySelector('.sheet').style.backgroundPosition"
        for i in (2, 3)
    )
    assert tab.run(plain) != tab.run(guided)
    table = pd.read_csv(root / "reports/mini/ablations/figures/gallery.csv")
    last = table[(table["method"] == "LDM-FG (Loss)") & (table["w"] == table["w"].max())]
    one = last[last["wanted"] == last["wanted"].iloc[-1]].iloc[0]
    scales = table["w"].nunique() - 1
    tab.run(
        SET.format(json.dumps(["gallery", {"class": one["wanted"], "criterion": one["method"], "w": scales}]))
    )
    tile = "document.querySelector('#tiles tr').cells[3]"
    at = tab.run(f"{tile}.querySelector('.sheet').style.backgroundPosition")
    assert at == f"{-96 * one['column']}px {-96 * one['row']}px"
    assert f"entropy {one['entropy']:.2f}" in tab.run(f"{tile}.textContent")
    real = tab.run(
        "document.querySelector('#tiles tr').cells[1].querySelector('.sheet').style.backgroundPosition"
    )
    assert real == f"{-96 * one['column']}px 0px"


def test_the_numbers_of_the_claims_are_those_of_pieces(tab, site, root):
    tab.open((site / "claims.html").as_uri())
    pieces = pd.read_csv(root / "reports/pieces.csv").dropna(subset="mean")
    shown = tab.run(
        "[...document.querySelectorAll('details.claim td:nth-child(3) > a')].map((a) => a.textContent)"
    )
    assert [float(text.split(" ")[0]) for text in shown] == pytest.approx(pieces["mean"].tolist(), abs=0.06)
    low = [float(text.split("[")[1].split(",")[0]) for text in shown]
    assert low == pytest.approx(pieces["low"].tolist(), abs=0.06)

import json
import math

import pandas as pd
import pytest

from fgsynth.config.names import FG_ENTROPY
from fgsynth.cost import cards, true_counts, true_size
from fgsynth.cost.cards import CARDS, RESERVE, SHARE, Counted
from fgsynth.cost.estimate import Evaluations, evaluations
from fgsynth.cost.true_size import PEAKS
from fgsynth.data.disk import real
from fgsynth.generate.methods import methods
from fgsynth.utils.blocks import with_block
from fgsynth.utils.errors import UserError

EACH = {"denoiser": (2.0, 0.0), "denoiser_back": (4.0, 0.0), "decoder": (0.0, 5.0),
        "decoder_back": (0.0, 9.0), "classifier": (0.0, 0.01), "classifier_back": (0.0, 0.02)}  # fmt: skip


def counted(measured=()):
    work = [(name, kind, *each) for name in true_size.CLASSIFIERS for kind, each in EACH.items()]
    memory = [(p, g, b, 5.0 + b * size) for p in ("bfloat16", "float32") for g, size in
              (("none", 0.5), ("cheap", 1.0), ("exact", 9.0)) for b in (1, 2, 4, 8)]  # fmt: skip
    return Counted(
        pd.DataFrame(work, columns=true_counts.WORK),
        pd.DataFrame(memory, columns=true_counts.MEMORY),
        pd.DataFrame(measured, columns=true_size.COLUMNS),
    )


def test_every_card_has_both_peaks():
    assert set(CARDS) <= set(PEAKS)
    assert all(PEAKS[name] > card.full > 0 for name, card in CARDS.items())
    assert set(EACH) == set(Evaluations.__dataclass_fields__)


def test_seconds_by_hand(root):
    table = cards.tables(root, exact=True)["1 and 6"]
    s = table.sampling
    assert (s.n_steps, s.every) == (30, 5)
    plain, guided = (
        counted().seconds("A100", "resnext50_32x4d", s, methods(s)[name])
        for name in ("LDM (txt and img)", FG_ENTROPY)
    )
    assert plain == (pytest.approx((60 * 2 / 312 + 5 / 156) / SHARE), False)
    half, full = 60 * 2 + 12 * 4, 7 * 5 + 6 * 9 + 7 * 0.01 + 6 * 0.02
    assert guided == (pytest.approx((half / 312 + full / 156) / SHARE), False)
    cheap = cards.tables(root, exact=False)["1 and 6"].sampling
    saved = guided[0] - counted().seconds("A100", "resnext50_32x4d", cheap, methods(cheap)[FG_ENTROPY])[0]
    assert saved == pytest.approx(12 * 4 / 312 / SHARE)


def test_a_measured_card_is_believed(root):
    s = cards.tables(root, exact=True)["1 and 6"].sampling
    row = dict.fromkeys(true_size.COLUMNS, math.nan) | {
        "hardware": "NVIDIA A100-SXM4-80GB, torch 2", "precision": "bfloat16", "gradient": "exact",
        "classifier": "resnext50_32x4d", "batch": 4, "steps": 30, "seconds": 7.5,
    }  # fmt: skip
    rows = [row, {**row, "batch": 8, "seconds": 7.0}, {**row, "steps": 2, "seconds": 0.5},
            {**row, "gradient": "none", "seconds": 1.0}]  # fmt: skip
    known = counted(rows)
    assert known.seconds("A100", "resnext50_32x4d", s, methods(s)[FG_ENTROPY]) == (7.0, True)
    assert not known.seconds("H100", "resnext50_32x4d", s, methods(s)[FG_ENTROPY])[1]
    assert "| A100 | 1 |" in cards.seconds_markdown(known, root)
    assert "estimate, measured |" in cards.seconds_markdown(known, root)


def test_batches_that_fit():
    known = counted()
    gib = 16e9 / 2**30 - RESERVE
    assert 5 + 1.0 * 8 - 1 < gib < 5 + 1.0 * 8
    assert [known.batch(16, "bfloat16", g) for g in ("none", "cheap", "exact")] == [8, 4, 0]
    assert known.batch(24, "bfloat16", "exact") == 1
    text = cards.batches_markdown(known)
    assert "| 16 GB | bfloat16 | 8 | 4 | does not fit |" in text
    assert "more" not in text
    row = dict.fromkeys(true_size.COLUMNS, math.nan) | {
        "hardware": "a card", "precision": "bfloat16", "gradient": "cheap", "batch": 2, "peak_gib": 10.25
    }  # fmt: skip
    assert "held up to 3.2 GiB more" in cards.batches_markdown(counted([row]))


def test_images_are_those_of_the_published_lists(root, monkeypatch):
    monkeypatch.chdir(root)
    assert int(cards.published_counts(root, "imagenet_lt").sum()) == 115_846
    assert cards.missing_images(root, "imagenet_lt", 1300) == 1_184_154
    assert cards.missing_images(root, "imagenet_lt", None) == 1000 * 1280 - 115_846 + 1
    assert cards.missing_images(root, "places_lt", None) == 365 * 4980 - 62_500 + 1
    assert cards.missing_images(root, "nicopp", None) == 360 * 811 - 62_657 + 1


def test_the_tables_are_the_papers(root):
    made = cards.tables(root, exact=True)
    assert {number: len(table.sets) for number, table in made.items()} == {
        "1 and 6": 7,
        "2": 6,
        "3": 5,
        "4": 6,
    }
    assert made["4"].images == 6 * 20 * 1000
    assert made["2"].images == 6 * cards.missing_images(root, "places_lt", made["2"].sampling.fill_to)


def test_hours_go_down_with_cards_but_not_below_a_shard(root):
    table = cards.tables(root, exact=True)["4"]
    one, eight, many = (table.hours(counted(), "A100", n) for n in (1, 8, 64))
    seconds = sum(
        20_000 * counted().seconds("A100", "resnext50_32x4d", table.sampling, way)[0] for _, way in table.sets
    )
    assert one == pytest.approx(seconds / 3600)
    assert eight == many == pytest.approx(one / 2), "two shards of 10,000 in every set"
    assert evaluations(1, table.sampling, table.sets[-1][1]).denoiser_back == 12


def test_without_counts_and_with_damaged_ones_there_is_a_sentence(tmp_path):
    with pytest.raises(
        UserError, match=r"true_size has no counts: write them by `python -m fgsynth true-size"
    ):
        cards.blocks(tmp_path)
    folder = tmp_path / "reports" / "true_size"
    folder.mkdir(parents=True)
    (folder / "work.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"work\.csv has other columns than classifier, evaluation"):
        cards.blocks(tmp_path)


def test_the_tables_in_the_documents_are_made_from_the_counts(root):
    text, blocks = (root / "docs" / "cluster.md").read_text(), cards.blocks(root)
    assert list(blocks) == ["batches", "seconds", "hours"]
    for mark, block in blocks.items():
        assert text.count(f"<!--{mark}-->") == 1
        assert with_block(text, mark, block) == text


def test_lost_counts_are_named(tmp_path):
    with pytest.raises(UserError, match=r"train_counts\.json"):
        cards.published_counts(tmp_path, "imagenet_lt")


def test_the_counts_are_the_lists(root):
    lists = root.parent / "shared/data/splits"
    if not lists.is_dir():
        pytest.skip("the official split files are not there")
    known = json.loads((root / real.COUNTS).read_text())
    published = pd.read_csv(lists / "ImageNet_LT_train_counts.csv")
    assert known["imagenet_lt"] == published.sort_values("label")["n_train"].tolist()
    labels = pd.read_csv(lists / "Places_LT_train.txt", sep=" ", header=None)[1]
    assert known["places_lt"] == labels.value_counts().sort_index().tolist()


def test_what_was_measured_did_the_work_that_is_counted(root):
    """Whole images on a real device against evaluations counted one by one without numbers."""
    known = Counted.read(root / "reports" / "true_size")
    work = known.work.set_index(["classifier", "evaluation"]).sum(axis=1)
    rows = known.measured.dropna(subset="tflop")
    assert {"none", "cheap", "exact"} <= set(rows["gradient"])
    for row in rows.to_dict("records"):
        s = cards.tables(root, exact=row["gradient"] != "cheap")["1 and 6"].sampling
        s = s.model_copy(update={"n_steps": row["steps"]})
        once = evaluations(1, s, methods(s)["LDM (txt and img)" if row["gradient"] == "none" else FG_ENTROPY])
        counted = sum(getattr(once, kind) * work[row["classifier"], kind] for kind in EACH)
        # Beside them a prompt and an image are encoded, once.
        assert counted < row["tflop"] < counted + 1, row

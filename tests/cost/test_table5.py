import pandas as pd
import pytest
import tiny_sd
import torch
from tiny_unclip import save
from torch import nn

from fgsynth.cost import table5
from fgsynth.cost.meter import Stopwatch, peak, start_peak
from fgsynth.generate.generator import Generator


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return Generator.load(save(tmp_path_factory.mktemp("unclip")), n_steps=6)


@pytest.fixture(scope="module")
def table(tiny):
    return table5.cost(tiny, batches=(1, 2), repeats=1)


def test_every_row_at_every_batch(table):
    assert table["method"].tolist() == [*table5.ROWS] * 2
    assert table["batch"].tolist() == [1] * 9 + [2] * 9
    assert table.notna().all().all()
    assert (table.loc[table["method"] == "LDM (txt, img, dropout)", "relative"] == 1).all()
    # Thirteen passes of the decoder against one: the clock must see it.
    assert (table.loc[table["method"] == "LDM-FG (Entropy), exact, every step", "relative"] > 1.5).all()


def test_a_model_that_takes_text_only_is_timed_too(tmp_path):
    generator = Generator.load(tiny_sd.save(tmp_path), n_steps=6)
    with Stopwatch(generator, nn.Identity()) as watch:
        generator.embed_text(["a cat"])
    assert watch.passes["text"] == 1


def test_the_peak_is_that_of_the_row():
    device = torch.device("cpu")
    start_peak(device)
    before = peak(device)
    torch.ones(2**26).sum()  # 256 MiB
    assert peak(device) > before + 200
    start_peak(device)
    assert peak(device) < before + 200


def test_network_evaluations_are_counted(table):
    passes = table[table["batch"] == 2].set_index("method")[["denoiser", "decoder"]]
    assert (passes["denoiser"] == 6).all()
    # One for the finished image, one per guided step: 0 and 5, or every one.
    assert passes["decoder"].to_dict() == {
        name: 1 if name == "LDM (txt, img, dropout)" else 7 if "every step" in name else 3
        for name in table5.ROWS
    }


def test_it_is_written_down(tiny, table, tmp_path):
    text = table5.write(table, tiny, tmp_path)
    assert (tmp_path / "cost.txt").read_text() == text
    assert "threads, torch" in text
    assert "6 DDIM steps" in text
    assert pd.read_csv(tmp_path / "cost.csv")["method"].tolist() == table["method"].tolist()

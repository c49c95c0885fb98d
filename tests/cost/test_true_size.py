import dataclasses

import pandas as pd
import pytest
import torch
from tiny_unclip import save

from fgsynth.cost import meter, true_shapes, true_size
from fgsynth.cost.meter import PARTS
from fgsynth.cost.true_size import COLUMNS, GRADIENTS, Case
from fgsynth.generate.generator import Generator
from fgsynth.models.networks import create, small
from fgsynth.utils.errors import UserError

PUBLISHED = {
    "unet": 870_173_124,
    "vae": 83_653_863,
    "text_encoder": 340_387_840,
    "image_encoder": 632_076_800,
}
ROW = {
    "hardware": "a card", "precision": "bfloat16", "classifier": "small", "gradient": "exact", "batch": 1,
    "steps": 2, "date": "2026-01-01", "guided": 1, "seconds": 2.5, **dict.fromkeys(PARTS, 0.1),
    "peak_gib": 4.0, "tflop": 12.0, "share_of_peak": torch.nan,
}  # fmt: skip


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    generator = Generator.load(save(tmp_path_factory.mktemp("unclip")), n_steps=2)
    return Case(generator, small(4).eval().requires_grad_(False), 4, side=32)


@pytest.fixture(scope="module")
def rows(case):
    return {gradient: case.measure(gradient, 2) for gradient in GRADIENTS}


def test_parameters_are_as_many_as_published():
    assert true_shapes.parameter_counts() == PUBLISHED


def test_shapes_take_no_memory():
    parts = true_shapes.networks()
    assert {p.device.type for part in parts.values() for p in part.parameters()} == {"meta"}
    unet = parts["unet"].to("meta")
    out = unet(
        torch.zeros(2, 4, 96, 96, device="meta"), 1, torch.zeros(2, 77, 1024, device="meta"),
        class_labels=torch.zeros(2, 2048, device="meta"),
    ).sample  # fmt: skip
    assert out.shape == (2, 4, 96, 96)
    assert parts["vae"].to("meta").decode(out).sample.shape == (2, 3, 768, 768)


@pytest.mark.parametrize(("name", "millions"), [("resnext50_32x4d", 25.03), ("resnet50", 25.56)])
def test_the_guides_are_the_papers(name, millions):
    assert name in true_size.CLASSIFIERS
    with torch.device("meta"):
        network = create(name, 1000)
    assert abs(sum(p.numel() for p in network.parameters()) / 1e6 - millions) < 0.01


def test_the_networks_make_a_generator():
    made = true_shapes.true_size(30, torch.bfloat16, "meta")
    assert made.dtype == torch.bfloat16
    assert {p.dtype for p in made.pipe.vae.parameters()} == {torch.float32}
    assert made.large
    assert len(made.schedule.steps) == 30


def test_random_weights_are_small_and_pass_signals_on():
    network = torch.nn.Sequential(*(torch.nn.Linear(512, 512, device="meta") for _ in range(8)))
    network.append(torch.nn.LayerNorm(512, device="meta"))
    true_shapes.fill(network, torch.float32)
    assert {p.device.type for p in network.parameters()} == {"cpu"}
    assert torch.equal(network[-1].weight, torch.ones(512))
    assert 0 < network[0].bias.abs().max() <= 0.01
    weight = network[0].weight
    assert (weight != 0).float().mean() > 0.99
    assert abs(float(weight.var()) * 512 - 1) < 0.05
    assert torch.linalg.matrix_rank(weight) == 512
    x = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    assert 0.5 < network[:-1](x).std() < 2


def test_filling_is_in_the_precision_asked_for():
    network = true_shapes.fill(torch.nn.Linear(4, 4, device="meta"), torch.bfloat16)
    assert network.weight.dtype == torch.bfloat16


def test_a_row_has_every_number(rows):
    named = {"hardware", "precision", "classifier", "date"}
    for gradient, row in rows.items():
        assert set(row) == set(COLUMNS) - named
        assert row["steps"] == 2
        assert row["guided"] == (0 if gradient == "none" else 1)
        assert row["peak_gib"] > 0.1


def test_the_parts_of_an_image_are_its_whole_time(rows):
    for row in rows.values():
        assert sum(row[part] for part in PARTS) == pytest.approx(row["seconds"])
        assert all(row[part] > 0 for part in ("text", "image", "denoiser", "decoder", "rest"))


def test_backward_is_booked_where_there_is_guidance(rows):
    assert rows["none"]["backward"] == rows["none"]["guide"] == 0
    assert rows["exact"]["backward"] > 0
    assert rows["cheap"]["backward"] > 0


def test_work_is_counted_by_kind_of_gradient(rows):
    tflop = {gradient: row["tflop"] for gradient, row in rows.items()}
    assert tflop["exact"] > tflop["cheap"] > tflop["none"] > 0
    assert tflop["exact, reused"] == tflop["exact"]


def test_recomputation_is_backward_and_not_decoding(tmp_path, case, monkeypatch):
    monkeypatch.setattr("fgsynth.generate.generator.LARGE", 1)
    large = dataclasses.replace(case, generator=Generator.load(save(tmp_path), 2))
    assert large.generator.large
    booked = []
    real = meter.Stopwatch._book
    monkeypatch.setattr(
        meter.Stopwatch, "_book", lambda self, part: (booked.append(part), real(self, part))[1]
    )
    large.sample(GRADIENTS["exact"], 3)
    # Three images for the guide, three to keep.
    assert booked.count("decoder") == 6
    assert booked.count("denoiser") == 2
    # The guide looks at one large image at a time.
    assert booked.count("backward") == 3


def test_what_does_not_fit_is_a_row_without_numbers(case, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(case.generator.pipe.unet, "forward", full)
    row = case.measure("none", 2)
    assert row["batch"] == 2
    assert all(row[name] != row[name] for name in ("seconds", *PARTS, "peak_gib", "tflop", "share_of_peak"))


def test_another_mistake_is_not_hidden(case):
    with pytest.raises(UserError, match="classes"):
        dataclasses.replace(case, n_classes=5).measure("exact", 1)


def test_rows_are_written_one_by_one_and_replaced(tmp_path):
    true_size.write(tmp_path, ROW)
    true_size.write(tmp_path, {**ROW, "batch": 2, "seconds": torch.nan})
    text = true_size.write(tmp_path, {**ROW, "seconds": 3.5, "date": "2026-01-02"})
    table = pd.read_csv(tmp_path / "true_size.csv")
    assert list(table.columns) == COLUMNS
    assert table["batch"].tolist() == [2, 1]
    assert table["seconds"].tolist()[1] == 3.5
    assert (tmp_path / "true_size.md").read_text() == text + "\n"
    assert "## a card, 2026-01-02" in text
    assert "unet 870 M" in text
    assert "| exact | 1 | 2 | 1 | 3.5 |" in text


def test_a_table_of_other_columns_is_not_overwritten(tmp_path):
    (tmp_path / "true_size.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"true_size\.csv has other columns"):
        true_size.write(tmp_path, ROW)
    assert (tmp_path / "true_size.csv").read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"classifiers": ["vgg"]}, "Unknown classifier 'vgg'"),
        ({"gradients": ["best"]}, "Unknown gradient 'best'"),
        ({"precision": "int8"}, "Unknown precision 'int8'"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_built(tmp_path, asked, said):
    with pytest.raises(UserError, match=said):
        true_size.run(tmp_path, **asked)


def test_run_measures_what_is_asked(tmp_path, case, monkeypatch):
    built = []

    def stand_in(n_steps, dtype, device):
        built.append((n_steps, dtype, device))
        return case.generator

    monkeypatch.setattr(true_size, "true_size", stand_in)
    monkeypatch.setattr(true_size, "create", lambda name, n_classes: small(n_classes))
    monkeypatch.setattr(true_size, "SIDE", 32)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    true_size.run(tmp_path, ["resnet50"], ["none", "cheap"], [1], precision="float32")
    table = pd.read_csv(tmp_path / "true_size.csv")
    assert built == [(2, torch.float32, "cpu")]
    assert list(zip(table["gradient"], table["batch"], strict=True)) == [("none", 1), ("cheap", 1)]
    assert table["hardware"].str.contains("threads, torch").all()
    assert table["share_of_peak"].isna().all()


def test_a_name_is_ahead_of_its_own_beginnings():
    names = list(true_size.PEAKS)
    assert not [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if a in b]


@pytest.mark.parametrize(("card", "peak"), [("NVIDIA H100 PCIe", 756), ("NVIDIA H100 80GB HBM3", 989)])
def test_a_card_is_known_by_its_name(monkeypatch, card, peak):
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: card)
    assert true_size.peak_of(torch.device("cuda")) == peak


def test_another_card_has_no_peak(monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "Some Card")
    assert true_size.peak_of(torch.device("cuda")) != true_size.peak_of(torch.device("cuda"))

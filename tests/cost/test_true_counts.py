import pandas as pd
import pytest
import torch
from tiny_unclip import save
from torch._subclasses.fake_tensor import FakeTensorMode

from fgsynth.config.schema import Sampling
from fgsynth.cost import true_counts, true_size
from fgsynth.cost.estimate import evaluations
from fgsynth.cost.true_counts import Scene, Tally
from fgsynth.cost.true_size import Case
from fgsynth.generate.generator import Generator
from fgsynth.generate.plan import Method
from fgsynth.models.networks import small


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("unclip"))


def scene(folder):
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    generator = true_counts.fake(Generator.load(folder, n_steps=6, dtype=torch.bfloat16), mode)
    with mode:
        guide = small(4).eval().requires_grad_(False)
    return Scene(generator, guide, 32, mode)


def test_operations_and_bytes_by_hand():
    a, b = torch.zeros(8, 16), torch.zeros(16, 4)
    with Tally([a, a.t(), b]) as tally:
        c = a @ b
        d = c.t()
        del c, d
        a.to(torch.bfloat16) @ b.to(torch.bfloat16)
    assert tally.flops == {torch.float32: 2 * 8 * 16 * 4, torch.bfloat16: 2 * 8 * 16 * 4}
    held = 4 * (8 * 16 + 16 * 4)
    assert tally.peak == held + held // 2 + 2 * 8 * 4


def test_the_sum_of_evaluations_is_what_a_run_does(folder):
    """Counted on fake tensors, evaluation by evaluation, against counted while images are made."""
    made = Case(
        Generator.load(folder, n_steps=6, dtype=torch.bfloat16),
        small(4).eval().requires_grad_(False),
        4,
        side=32,
    )
    each = true_counts.work(scene(folder))
    for gradient in ("none", "cheap", "exact"):
        s = Sampling(
            generator="", n_steps=6, every=5, through_network=gradient == "exact", cfg=3.0, cfg_text=1.5,
            noise_level=0, dropout=0.5, fill_to=None, per_shard=10,
            scales=dict.fromkeys(("entropy", "loss", "hardness", "combined"), 1.0),
        )  # fmt: skip
        method = Method() if gradient == "none" else Method(criteria=("entropy",), scale=1.0)
        once = evaluations(1, s, method)
        counted = sum(getattr(once, kind) * flops.total() for kind, flops in each.items()) / 1e12
        measured = made.measure(gradient, 1)["tflop"]
        # A run also encodes a prompt and an image, and looks at a black one.
        assert counted < measured < 1.25 * counted


def test_backwards_are_more_than_forwards(folder):
    each = true_counts.work(scene(folder))
    for name in ("denoiser", "decoder", "classifier"):
        assert each[f"{name}_back"].total() >= 0.9 * each[name].total() > 0
    assert set(each["denoiser"]) == set(each["denoiser_back"]) == {torch.bfloat16}
    assert set(each["decoder"]) == set(each["decoder_back"]) == {torch.float32}


def test_memory_rises_with_feedback_and_batch(folder):
    one, four = (true_counts.memory(scene(folder), n) for n in (1, 4))
    assert 0 < one["none"] < one["cheap"] <= one["exact"]
    assert all(four[name] > one[name] for name in one)


def test_large_images_cost_their_guide_one_decoding_at_a_time(folder, monkeypatch):
    at_once = [scene(folder).tally("cheap", n).peak for n in (1, 4)]
    monkeypatch.setattr("fgsynth.generate.generator.LARGE", 1)
    one_by_one = [scene(folder).tally("cheap", n).peak for n in (1, 4)]
    assert one_by_one[1] - one_by_one[0] < (at_once[1] - at_once[0]) / 3


def test_tables_are_written(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(Scene, "of", lambda *_: scene(folder))
    text = true_counts.run(tmp_path, batches=(1,))
    work, memory = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("work", "memory"))
    assert list(work.columns) == true_counts.WORK
    assert set(work["classifier"]) == set(true_size.CLASSIFIERS)
    assert len(work) == 12
    assert list(memory.columns) == true_counts.MEMORY
    assert len(memory) == 2 * 3
    assert "denoiser_back" in text

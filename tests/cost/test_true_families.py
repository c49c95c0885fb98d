import pandas as pd
import pytest
import tiny_families
import torch
from torch import nn

from fgsynth.config.schema import Sampling
from fgsynth.cost import true_families
from fgsynth.cost.estimate import evaluations
from fgsynth.cost.true_families import KINDS, MODELS, parameter_counts
from fgsynth.experiments.build import generator_of
from fgsynth.generate import pipelines
from fgsynth.generate.generator import Generator
from fgsynth.generate.plan import Method
from fgsynth.utils.blocks import with_block
from fgsynth.utils.errors import UserError

PUBLISHED = {
    "SDXL, IP-Adapter": {"text_encoder": 123_060_480, "text_encoder_2": 694_659_840, "vae": 83_653_863},
    "FLUX.1 [dev], Redux": {
        "transformer": 11_901_408_320,
        "text_encoder_2": 4_762_310_656,
        "vae": 83_819_683,
    },
}
SDXL_WITHOUT_ADAPTER = 2_567_463_684


@pytest.mark.parametrize("model", PUBLISHED)
def test_parameters_are_as_many_as_published(model):
    counts = parameter_counts(model)
    assert {name: counts[name] for name in PUBLISHED[model]} == PUBLISHED[model]


def test_the_adapter_of_sdxl_is_all_that_is_beside_it():
    unet = true_families.shapes("SDXL, IP-Adapter").unet
    adapters = [p for p in unet.attn_processors.values() if isinstance(p, nn.Module)]
    added = sum(p.numel() for part in (*adapters, unet.encoder_hid_proj) for p in part.parameters())
    assert sum(p.numel() for p in unet.parameters()) - added == SDXL_WITHOUT_ADAPTER
    assert {p.device.type for p in unet.parameters()} == {"meta"}


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux"])
def test_a_family_is_counted_by_its_own_code(name, tmp_path, monkeypatch):
    model = getattr(tiny_families, name)(tmp_path / "model")
    monkeypatch.setattr(true_families, "shapes", lambda _: pipelines.pipeline(model, None, torch.float32))
    monkeypatch.setattr(Generator, "of", small(Generator.of))
    true_families.run(tmp_path, ["tiny"], batches=(1, 2))
    memory, work = (pd.read_csv(tmp_path / f"{table}.csv") for table in ("memory", "work"))
    once = work.set_index("evaluation")["half_tflop"]
    # Back is the pass again, and at least as much for the gradient.
    assert once["denoiser_back"] > 0.9 * once["denoiser"] > 0
    one, two = (memory[memory["batch"] == n].set_index("feedback")["gib"] for n in (1, 2))
    assert list(one.index) == list(KINDS)
    assert one["no feedback"] < one["cheap"] <= one["exact"]
    assert (two > one).all()


@pytest.mark.parametrize(("name", "evaluations_a_step"), [("sd3", 2), ("flux", 1)])
def test_a_plan_counts_what_a_family_evaluates_under_cfg(name, evaluations_a_step, tmp_path):
    s = Sampling(
        generator=getattr(tiny_families, name)(tmp_path), n_steps=6, every=5, through_network=True, cfg=3.0,
        cfg_text=3.0, noise_level=0, dropout=0.5, fill_to=None,
        scales=dict.fromkeys(("entropy", "loss", "hardness", "combined"), 1.0),
    )  # fmt: skip
    assert evaluations(10, s, Method()).denoiser == 60 * evaluations_a_step
    assert generator_of(s).image_width > 0  # the adapter is there


def small(real):
    """`Generator.of` at few pixels, as a FLUX.1 names no size of its own."""
    return classmethod(lambda cls, pipe, *args, **kwargs: real(pipe, *args, **{**kwargs, "side": 32}))


def test_the_tables_in_the_document_are_made_from_the_counts(root):
    text, blocks = (root / "docs" / "generators.md").read_text(), true_families.blocks(root)
    for mark, block in blocks.items():
        assert text.count(f"<!--{mark}-->") == 1
        assert with_block(text, mark, block) == text
        assert all(model in block for model in MODELS)
    kept = pd.read_csv(root / "reports" / "families" / "memory.csv")
    for _, gib in kept.pivot_table("gib", ["model", "batch"], "feedback").iterrows():
        assert gib["no feedback"] <= gib["cheap, tiny decoder"] <= gib["cheap"] <= gib["exact"]


def test_lost_counts_are_named(tmp_path):
    with pytest.raises(UserError, match=r"parameters\.csv does not hold model, network.*--families"):
        true_families.blocks(tmp_path)

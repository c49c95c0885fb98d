"""The committed mini unCLIP: what the experiments rely on, and what its card says of it."""

import json

import pytest
import torch
from diffusers import StableUnCLIPImg2ImgPipeline

from fgsynth.config.params import load
from fgsynth.generate.generator import Generator
from fgsynth.miniworld import judge
from fgsynth.pretrain.card import card, checks
from fgsynth.pretrain.files import CARD, FOLDER, JUDGE, SCORES, TRAINING
from fgsynth.pretrain.scores import MAJORITY, Setting, context_right, judged, other_contexts, right, subjects
from fgsynth.utils.errors import UserError
from tests.generate.test_generator import assert_diffusers_agrees


@pytest.fixture(scope="module")
def mini(root):
    return Generator.load(root / FOLDER, n_steps=10)


@pytest.fixture(scope="module")
def scores(root):
    return json.loads((root / SCORES).read_text())


def test_the_card_is_made_of_the_scores_and_every_requirement_is_met(root, scores):
    record = json.loads((root / FOLDER / TRAINING).read_text())
    assert card(record, scores).rstrip("\n") == (root / CARD).read_text().rstrip("\n")
    assert [str(c) for c in checks(scores) if not c.met] == []


def test_a_requirement_that_is_not_met_is_said_so(root, scores):
    record = json.loads((root / FOLDER / TRAINING).read_text())
    worse = scores | {"by class": scores["by class"] | {"cup": 0.4}}
    assert "worst class (cup) | 40.0 % (at least 50 %) | **no** |" in card(record, worse)
    assert "**no**" not in card(record, scores)


def test_the_weights_are_small_and_safe(root):
    files = [f for f in (root / FOLDER).rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 20e6
    assert {f.suffix for f in files} == {".json", ".safetensors"}


def test_it_makes_what_is_asked_for(root, mini):
    factors = subjects("a test", 1, MAJORITY)[::3]
    table = judged(
        mini, judge.load(root / FOLDER / JUDGE), factors, other_contexts(factors), Setting(3.0), True
    )
    assert len(table) == 48
    assert right(table) > 0.7
    assert context_right(table) > 0.7


def test_diffusers_own_pipeline_gives_the_same_image(root, mini):
    pipe = StableUnCLIPImg2ImgPipeline.from_pretrained(root / FOLDER)
    condition = torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    assert_diffusers_agrees(mini, pipe, ["apple in water", "fish in rock"], condition, [3, 4], 3.0)


def test_the_notebook_asks_as_the_card_has_chosen(root, scores):
    chosen = scores["settings"]
    for scale in ("mini", "evening", "paper"):
        block = getattr(load(root / "params.yaml"), scale).ablations
        sampling = (block.mini_world or block).sampling
        assert (sampling.cfg, sampling.noise_level) == tuple(chosen["text and image"].values())
        assert sampling.cfg_text == chosen["text"]["cfg"]


def test_its_tokenizer_knows_its_length(mini):
    assert mini.embed_text(["a drawing of striped blue apple in water"]).shape == (1, 16, 128)
    with pytest.raises(UserError, match="tokens, the model takes 16: shorten it"):
        mini.embed_text(["apple " * 20])

from dataclasses import replace

import pytest
import torch

from fgsynth.beyond.epistemic_heads import epistemic_heads
from fgsynth.config.schema import Groups, Sampling
from fgsynth.data import mini
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.generator import Generator
from fgsynth.generate.plan import Method
from fgsynth.guidance.criteria import bald
from fgsynth.pretrain.files import FOLDER
from fgsynth.train.recipe import Recipe

GROUPS = Groups(n_max=6, n_min=1, empty=3, held_out=3, classes=3, modes=(0.5, 0.5))
SAMPLING = Sampling(
    generator=str(FOLDER), n_steps=2, every=1, through_network=False, cfg=3.0, cfg_text=1.5, noise_level=0,
    dropout=0.5, scales={"entropy": 0.1, "loss": 0.2, "hardness": 0.3, "combined": 0.4}, fill_to=1,
)  # fmt: skip
RECIPE = Recipe(network="thin", epochs=1, updates_per_epoch=4, batch=8, balanced=0.0)


@pytest.fixture(scope="module")
def exp(root, tmp_path_factory):
    unclip = Generator.load(root / FOLDER, SAMPLING.n_steps)
    return Experiment(mini.nicopp(GROUPS), unclip, SAMPLING, RECIPE, tmp_path_factory.mktemp("work"))


def test_heads_say_the_mean_probability_and_keep_what_each_says(exp):
    heads = epistemic_heads(exp, 3)
    logits, each = heads(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(logits.softmax(1), each.reshape(2, 3, -1).softmax(2).mean(1))


def test_epistemic_heads_learn_the_classes_and_disagree_on_what_they_did_not_see(exp):
    heads = epistemic_heads(exp, 4)
    seen, label = exp.outputs(heads, exp.real), exp.real.label
    assert (seen[0].argmax(1) == label).float().mean() > (
        exp.outputs(exp.guide, exp.real)[0].argmax(1) == label
    ).float().mean()
    noise = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        unseen = heads(noise)
    zeros = torch.zeros(64, dtype=torch.long)
    assert bald(*unseen, zeros).mean() > bald(*seen, label).mean() > 0
    again = epistemic_heads(exp, 4)
    torch.testing.assert_close(heads.weight, again.weight, rtol=0, atol=0)


def test_their_disagreement_guides_and_makes_other_images(exp):
    way = Method(dropout=0.5, criteria=("bald",), scale=0.1)
    by_entropy = exp.synthetic(replace(way, criteria=("entropy",)))
    by_heads = replace(exp, guided_by=epistemic_heads(exp, 4)).synthetic(way)
    assert not torch.equal(by_entropy.x, by_heads.x)
    assert (by_heads.index["after"] > by_heads.index["before"]).mean() > 0.5

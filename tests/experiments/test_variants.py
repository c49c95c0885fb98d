"""Variants of the generator, with two updates of the denoiser."""

import pytest
import torch

from fgsynth.config.params import load
from fgsynth.experiments import variants as module
from fgsynth.experiments.variants import ONE_SIDED, VARIANTS, variant
from fgsynth.generate.generator import Generator
from fgsynth.pretrain.files import FOLDER
from fgsynth.pretrain.unet import denoiser

IMAGES = 65


@pytest.fixture(scope="module")
def late(root):
    return Generator.load(root / FOLDER, n_steps=2)


@pytest.fixture(scope="module")
def plan(root):
    everything = load(root / "params.yaml")
    few = everything.feedback_map.denoisers.model_copy(update={"updates": 2, "batch": 4, "images": IMAGES})
    return few, everything.pretrain.conditioning


@pytest.fixture(scope="module")
def trained(late, plan, tmp_path_factory):
    work = tmp_path_factory.mktemp("variants")
    return {name: variant(late, name, *plan, work) for name in VARIANTS}, work


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize("name", VARIANTS)
def test_only_the_denoiser_is_another(late, trained, name):
    made = trained[0][name]
    parts = made.pipe.components
    others = {name for name, part in late.pipe.components.items() if parts[name] is not part}
    assert others == {"unet"}
    assert weights(made.pipe.unet).shape == weights(denoiser()).shape
    assert not torch.equal(weights(made.pipe.unet), weights(late.pipe.unet))
    assert made.schedule is not late.schedule
    assert made.schedule.steps == late.schedule.steps
    assert not any(p.requires_grad for p in made.pipe.unet.parameters())


def test_the_one_sided_starts_from_the_final_one_and_the_early_from_nothing(late, trained):
    far = {
        name: (weights(made.pipe.unet) - weights(late.pipe.unet)).norm() for name, made in trained[0].items()
    }
    assert 0 < far["one-sided"] < far["early"] / 10
    assert not any(p.requires_grad for p in late.pipe.unet.parameters())


def test_the_one_sided_web_shows_a_thing_in_one_appearance():
    factors = module.draw_corpus(400, "test", ONE_SIDED).factors
    assert (factors["mode"] == 0).mean() == pytest.approx(0.9, abs=0.06)


def test_it_is_frozen_and_samples_other_images(late, trained):
    made = trained[0]["early"]
    assert not made.pipe.unet.training
    text, image = late.embed_text(["fish"]), late.no_image(1)
    z, (t, _) = late.noise([0]), late.schedule.steps[0]
    with torch.no_grad():
        clean, other = (g.predict(text, image, 2.0)(z, t)[0] for g in (late, made))
    assert clean.shape == other.shape
    assert other.isfinite().all()
    assert not torch.allclose(clean, other)


@pytest.mark.parametrize("name", VARIANTS)
def test_what_was_trained_before_is_loaded_and_the_same_again_elsewhere(
    late, plan, trained, tmp_path, monkeypatch, name
):
    made, work = trained
    again = variant(late, name, *plan, tmp_path)
    assert torch.equal(weights(again.pipe.unet), weights(made[name].pipe.unet))
    other = plan[0].model_copy(update={"rate": 0.1}), plan[1]
    assert not torch.equal(weights(variant(late, name, *other, work).pipe.unet), weights(again.pipe.unet))
    monkeypatch.setattr(module.DenoisingLoss, "__call__", lambda *_: pytest.fail("trained"))
    loaded = variant(late, name, *plan, work)
    assert torch.equal(weights(loaded.pipe.unet), weights(again.pipe.unet))


def test_the_seeds_of_others_stay_as_they_are(late, plan, trained):
    _, work = trained
    torch.manual_seed(0)
    first = torch.rand(2)
    torch.manual_seed(0)
    variant(late, "early", *plan, work)
    assert torch.equal(torch.rand(2), first)

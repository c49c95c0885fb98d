"""The early generator, with two updates of its denoiser."""

import pytest
import torch

from fgsynth.config.params import load
from fgsynth.experiments import early_generator as module
from fgsynth.experiments.early_generator import early
from fgsynth.generate.generator import Generator
from fgsynth.pretrain.files import FOLDER
from fgsynth.pretrain.unet import denoiser
from fgsynth.utils.errors import UserError

IMAGES = 65


@pytest.fixture(scope="module")
def late(root):
    return Generator.load(root / FOLDER, n_steps=2)


@pytest.fixture(scope="module")
def asked(root):
    everything = load(root / "params.yaml")
    plan = everything.feedback_map.early.model_copy(update={"updates": 2, "batch": 4})
    return plan, everything.pretrain.conditioning, IMAGES


@pytest.fixture(scope="module")
def trained(late, asked, tmp_path_factory):
    work = tmp_path_factory.mktemp("early")
    return early(late, *asked, work), work


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_only_the_denoiser_is_another(late, trained):
    made, _ = trained
    parts = made.pipe.components
    others = {name for name, part in late.pipe.components.items() if parts[name] is not part}
    assert others == {"unet"}
    assert dict(made.pipe.unet.config) == dict(denoiser().config)
    assert weights(made.pipe.unet).shape == weights(late.pipe.unet).shape
    assert not torch.equal(weights(made.pipe.unet), weights(late.pipe.unet))
    assert made.schedule is not late.schedule
    assert made.schedule.steps == late.schedule.steps


def test_it_is_frozen_and_samples_other_images(late, trained):
    made, _ = trained
    assert not made.pipe.unet.training
    assert not any(p.requires_grad for p in made.pipe.unet.parameters())
    text, image = late.embed_text(["fish"]), late.no_image(1)
    z, (t, _) = late.noise([0]), late.schedule.steps[0]
    with torch.no_grad():
        clean, other = (g.predict(text, image, 2.0)(z, t)[0] for g in (late, made))
    assert clean.shape == other.shape
    assert other.isfinite().all()
    assert not torch.allclose(clean, other)


def test_what_was_trained_before_is_loaded_and_the_same_again_elsewhere(
    late, asked, trained, tmp_path, monkeypatch
):
    made, work = trained
    again = early(late, *asked, tmp_path)
    assert torch.equal(weights(again.pipe.unet), weights(made.pipe.unet))
    monkeypatch.setattr(module.DenoisingLoss, "__call__", lambda *_: pytest.fail("trained"))
    loaded = early(late, *asked, work)
    assert torch.equal(weights(loaded.pipe.unet), weights(made.pipe.unet))


def test_the_seeds_of_others_stay_as_they_are(late, asked, trained):
    _, work = trained
    torch.manual_seed(0)
    first = torch.rand(2)
    torch.manual_seed(0)
    early(late, *asked, work)
    assert torch.equal(torch.rand(2), first)


def test_one_of_another_recipe_is_refused(late, asked, trained):
    made, work = trained
    plan, conditioning, images = asked
    for other in (
        (plan, conditioning, images + 1),
        (plan.model_copy(update={"rate": 0.1}), conditioning, images),
    ):
        with pytest.raises(UserError, match="holds an early generator of another recipe: restore"):
            early(late, *other, work)
    assert torch.equal(weights(early(late, *asked, work).pipe.unet), weights(made.pipe.unet))

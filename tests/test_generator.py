import shutil

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.utils import logging as diffusers_logging
from tiny_unclip import WIDTH, save

from fgsynth.errors import UserError
from fgsynth.generator import MIRROR, Dropout, Generator
from fgsynth.sampler import ddim
from fgsynth.seeds import stable_seed

PROMPTS = ["apple in water", "car"]
SEEDS = [11, 12]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("unclip"))


@pytest.fixture(scope="module")
def tiny(folder):
    return Generator.load(folder, n_steps=5)


def pictures(n=2, side=48):
    return [np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8) for i in range(n)]


def assert_diffusers_agrees(generator, pipe, prompts, embedding, seeds, cfg, noise_level=0):
    """Our sampler without feedback and the pipeline's own call: same noise, embedding noise and prompts."""
    pipe.set_progress_bar_config(disable=True)
    z = generator.noise(seeds)
    draws = [torch.Generator().manual_seed(stable_seed("embedding noise", s)) for s in seeds]
    theirs = pipe(
        prompt=prompts, image_embeds=embedding, latents=z, guidance_scale=cfg, noise_level=noise_level,
        num_inference_steps=len(generator.schedule.steps), generator=draws, output_type="pt",
    ).images  # fmt: skip
    image = generator.condition_image(embedding, seeds, noise_level=noise_level)
    with torch.no_grad():
        ours = generator.decode(
            ddim(generator.predict(generator.embed_text(prompts), image, cfg), z, generator.schedule)
        )
    torch.testing.assert_close((ours / 2 + 0.5).clamp(0, 1), theirs, rtol=0, atol=1e-4)
    assert theirs.std() > 0.01


@pytest.mark.parametrize(("cfg", "noise_level"), [(5.0, 0), (1.0, 0), (3.0, 400)])
def test_without_feedback_it_is_diffusers_own_pipeline(tiny, cfg, noise_level):
    embedding = tiny.clip_embedding(pictures())
    assert_diffusers_agrees(tiny, tiny.pipe, PROMPTS, embedding, SEEDS, cfg, noise_level)
    torch.testing.assert_close(
        tiny.embed_image(pictures(), SEEDS, noise_level=noise_level),
        tiny.condition_image(embedding, SEEDS, noise_level=noise_level),
    )


def test_a_scheduler_with_memory_is_replaced_at_the_door(tiny, folder):
    assert "PNDM" in (folder / "scheduler" / "scheduler_config.json").read_text()
    assert type(tiny.pipe.scheduler) is DDIMScheduler
    assert tiny.pipe.scheduler.config.prediction_type == "v_prediction"
    assert not tiny.pipe.scheduler.config.clip_sample
    assert [t for t, _ in tiny.schedule.steps] == [801, 601, 401, 201, 1]


def test_text_embeddings_are_kept_and_padded(tiny):
    first = tiny.embed_text(["banana", "car", "banana"])
    assert first.shape == (3, 77, WIDTH)
    assert torch.equal(first[0], first[2])
    calls = []
    handle = tiny.pipe.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(tiny.embed_text(["banana"])[0], first[0])
    assert not calls
    tiny.embed_text(["car in water"])
    assert calls
    handle.remove()


def test_a_prompt_that_is_too_long_is_named(tiny):
    with pytest.raises(UserError, match=r"'apple apple.*has 102 tokens, the model takes 77"):
        tiny.embed_text(["car", "apple " * 100])


def test_the_image_condition_is_own_to_its_seed(tiny):
    image = tiny.embed_image(pictures(), SEEDS, Dropout(0.5), noise_level=300)
    assert image.shape == (2, 2 * WIDTH)
    alone = tiny.embed_image(pictures()[1:], SEEDS[1:], Dropout(0.5), noise_level=300)
    torch.testing.assert_close(image[1:], alone)
    assert not torch.allclose(
        image[:1], tiny.embed_image(pictures()[:1], [99], Dropout(0.5), noise_level=300)
    )


def test_text_only_is_unclips_unconditional_half(tiny):
    assert torch.equal(tiny.no_image(3), torch.zeros(3, 2 * WIDTH))


@pytest.mark.parametrize("p", [0.25, 0.5, 0.75])
def test_dropout_takes_its_share_of_units(p):
    out = Dropout(p)(torch.ones(500, 40), range(500))
    assert set(out.unique().tolist()) == {0.0, 1.0}
    assert abs((out == 0).float().mean() - p) < 4 * (p * (1 - p) / 20000) ** 0.5
    assert len({tuple(row) for row in out.tolist()}) == 500


def test_whole_dropout_takes_all_or_nothing():
    out = Dropout(0.5, "whole")(torch.ones(400, 40), range(400))
    share = out.mean(1)
    assert set(share.tolist()) == {0.0, 1.0}
    assert abs(share.mean() - 0.5) < 0.1


def test_dropout_can_be_off():
    x = torch.ones(3, 4)
    assert torch.equal(Dropout(0.9, "off")(x, range(3)), x)


@pytest.mark.parametrize(("p", "kind", "said"), [(0.5, "some", "'some'"), (1.5, "units", "p = 1.5")])
def test_bad_dropout(p, kind, said):
    with pytest.raises(UserError, match=said):
        Dropout(p, kind)


def test_bad_noise_level(tiny):
    with pytest.raises(UserError, match="Embedding noise level 1000: choose between 0 and 999"):
        tiny.embed_image(pictures(), SEEDS, noise_level=1000)


def test_the_decoder_keeps_float32_and_its_gradient_equals_the_checkpointed_one(tiny, monkeypatch):
    z = tiny.noise(SEEDS).double().requires_grad_(True)
    (plain,) = torch.autograd.grad(tiny.decode(z).square().sum(), z)
    monkeypatch.setattr("fgsynth.generator.LARGE", 1)
    seen = []
    handle = tiny.pipe.vae.decoder.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    x = tiny.decode(z)
    handle.remove()
    assert seen == [1, 1]
    assert x.dtype == torch.float32
    (checkpointed,) = torch.autograd.grad(x.square().sum(), z)
    torch.testing.assert_close(plain, checkpointed, rtol=0, atol=1e-3 * float(plain.abs().max()))
    assert plain.abs().max() > 0


def test_a_missing_model_names_id_mirror_and_parameter(monkeypatch):
    # The environment variable has been read long ago.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as caught:
        Generator.load("stabilityai/no-such-unclip")
    assert all(
        word in str(caught.value) for word in ("stabilityai/no-such-unclip", MIRROR, "`generator`", "folder")
    )


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match=r"has no model_index\.json"):
        Generator.load(tmp_path)


def test_damaged_weights_are_one_sentence(folder, tmp_path):
    broken = tmp_path / "unclip"
    shutil.copytree(folder, broken)
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot be loaded"):
        Generator.load(broken)


def test_an_embedding_wholly_dropped_is_no_image(tiny):
    out = tiny.embed_image(pictures(8), range(8), Dropout(0.5, "whole"), noise_level=300)
    gone = (out == 0).all(1)
    assert 0 < gone.sum() < 8
    assert torch.equal(out[gone], tiny.no_image(int(gone.sum())))
    kept = tiny.embed_image(pictures(8), range(8), noise_level=300)
    assert torch.equal(out[~gone], kept[~gone])


def test_bars_of_loading_are_as_before(folder):
    diffusers_logging.disable_progress_bar()
    Generator.load(folder)
    assert not diffusers_logging.is_progress_bar_enabled()
    diffusers_logging.enable_progress_bar()
    Generator.load(folder)
    assert diffusers_logging.is_progress_bar_enabled()

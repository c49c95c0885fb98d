import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_sd
import torch
from diffusers import AutoencoderTiny, DDIMScheduler
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file, save_file
from tiny_unclip import WIDTH, save

from fgsynth.generate.dropout import Dropout
from fgsynth.generate.generator import Generator
from fgsynth.generate.pipelines import FAMILIES, MIRROR, WITHDRAWN
from fgsynth.generate.resize import at_resolution
from fgsynth.generate.synthesise import Feedback, Plan, synthesise
from fgsynth.guidance.criteria import entropy
from fgsynth.guidance.feedback import Guidance, guide
from fgsynth.guidance.samplers import ddim
from fgsynth.models.networks import small
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import stable_seed

PROMPTS = ["apple in water", "car"]
SEEDS = [11, 12]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("unclip"))


@pytest.fixture(scope="module")
def tiny(folder):
    return Generator.load(folder, n_steps=5)


@pytest.fixture(scope="module")
def sd_folder(tmp_path_factory):
    return tiny_sd.save(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def tiny_text(sd_folder):
    return Generator.load(sd_folder, n_steps=5)


@pytest.fixture(scope="module")
def guide_network():
    return small(4).eval().requires_grad_(False)


def tiny_decoder(folder, channels=4):
    """A random TAESD of few blocks: eight pixels to a latent, as the model's own decoder."""
    torch.manual_seed(1)
    AutoencoderTiny(
        encoder_block_out_channels=(16,) * 4, decoder_block_out_channels=(16,) * 4,
        num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4, latent_channels=channels,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def images(n=2, side=48):
    return [np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8) for i in range(n)]


def assert_same_images(generator, prompts, image, cfg, z, theirs):
    """Our sampler without feedback and the images of a pipeline's own call from the same noise."""
    with torch.no_grad():
        ours = generator.decode(
            ddim(generator.predict(generator.embed_text(prompts), image, cfg), z, generator.schedule)
        )
    torch.testing.assert_close((ours / 2 + 0.5).clamp(0, 1), theirs, rtol=0, atol=1e-4)
    assert theirs.std() > 0.01


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
    assert_same_images(generator, prompts, image, cfg, z, theirs)


@pytest.mark.parametrize(("cfg", "noise_level"), [(5.0, 0), (1.0, 0), (3.0, 400)])
def test_without_feedback_it_is_diffusers_own_pipeline(tiny, cfg, noise_level):
    embedding = tiny.clip_embedding(images())
    assert_diffusers_agrees(tiny, tiny.pipe, PROMPTS, embedding, SEEDS, cfg, noise_level)
    torch.testing.assert_close(
        tiny.embed_image(images(), SEEDS, noise_level=noise_level),
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
    image = tiny.embed_image(images(), SEEDS, Dropout(0.5), noise_level=300)
    assert image.shape == (2, 2 * WIDTH)
    alone = tiny.embed_image(images()[1:], SEEDS[1:], Dropout(0.5), noise_level=300)
    torch.testing.assert_close(image[1:], alone)
    assert not torch.allclose(image[:1], tiny.embed_image(images()[:1], [99], Dropout(0.5), noise_level=300))


def test_text_only_is_unclips_unconditional_half(tiny):
    assert torch.equal(tiny.no_image(3), torch.zeros(3, 2 * WIDTH))


@pytest.mark.parametrize("p", [0.25, 0.5, 0.75])
def test_dropout_takes_its_share_of_units(p):
    out = Dropout(p)(torch.ones(500, 40), range(500))
    assert set(out.unique().tolist()) == {0.0, 1.0}
    assert abs((out == 0).float().mean() - p) < 4 * (p * (1 - p) / 20000) ** 0.5
    assert len({tuple(row) for row in out.tolist()}) == 500


def test_dropout_of_zero_leaves_the_embedding():
    x = torch.ones(3, 4)
    assert torch.equal(Dropout(0.0)(x, range(3)), x)


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_bad_dropout(p):
    with pytest.raises(UserError, match=f"'p' is {p}: input should be"):
        Dropout(p)


def test_bad_noise_level(tiny):
    with pytest.raises(UserError, match="Embedding noise level 1000: choose between 0 and 999"):
        tiny.embed_image(images(), SEEDS, noise_level=1000)


def test_the_decoder_keeps_float32_and_its_gradient_equals_the_checkpointed_one(tiny, folder, monkeypatch):
    z = tiny.noise(SEEDS).double().requires_grad_(True)
    (plain,) = torch.autograd.grad(tiny.decode(z).square().sum(), z)
    monkeypatch.setattr("fgsynth.generate.generator.LARGE", 1)
    large = Generator.load(folder)
    seen, again = [], []
    vae = large.pipe.vae
    handles = [
        vae.decoder.register_forward_hook(lambda _, given, __: seen.append(len(given[0]))),
        # Ahead of the pass, as computing again ends as soon as all is there.
        vae.decoder.up_blocks[0].resnets[0].norm1.register_forward_pre_hook(lambda *_: again.append(1)),
    ]
    x = large.decode(z)
    assert x.dtype == torch.float32
    assert len(again) == 2
    (checkpointed,) = torch.autograd.grad(x.square().sum(), z)
    for handle in handles:
        handle.remove()
    assert seen == [1, 1]
    assert len(again) == 4
    torch.testing.assert_close(plain, checkpointed, rtol=0, atol=1e-3 * float(plain.abs().max()))
    assert plain.abs().max() > 0


def kept_for_the_gradient(function):
    """Bytes of all tensors that autograd keeps of a call."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (kept.append(x), x)[1], lambda x: x):
        function()
    return sum({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in kept}.values())


@pytest.mark.parametrize("of_the_tiny_decoder", [False, True])
def test_large_images_keep_little_for_the_gradient(folder, tmp_path, monkeypatch, of_the_tiny_decoder):
    def kept():
        g = Generator.load(folder, tiny_decoder=tiny_decoder(tmp_path / "tiny"))
        z = g.noise([1]).requires_grad_(True)
        return kept_for_the_gradient(lambda: (g.decode_for_guidance if of_the_tiny_decoder else g.decode)(z))

    small = kept()
    monkeypatch.setattr("fgsynth.generate.generator.LARGE", 1)
    assert kept() < small / 3


def test_a_missing_model_names_id_mirror_and_parameter(monkeypatch):
    # The environment variable has been read long ago.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as caught:
        Generator.load("stabilityai/no-such-unclip", revision="0123abc")
    assert all(
        word in str(caught.value) for word in ("stabilityai/no-such-unclip", MIRROR, "`generator`", "folder")
    )


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match=r"has no model_index\.json"):
        Generator.load(tmp_path)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def fewer_weights(path):
    kept = load_file(path)
    save_file(dict(list(kept.items())[1:]), path, metadata={"format": "pt"})


def variant(path):
    path.rename(path.with_suffix(".fp16.safetensors"))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
UNET, TEXT = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"
SCHEDULER, WHOLE = "scheduler/scheduler_config.json", ": mend this folder, or fetch the model again, whole"
DAMAGES = {
    "index a list": (
        lambda f: (f / "model_index.json").write_text("[1]"),
        f"holds no JSON object{WHOLE}",
    ),
    "index half": (
        lambda f: (f / "model_index.json").write_text("{"),
        f"model_index.json is no JSON .*{WHOLE}",
    ),
    "latin-1": (
        lambda f: (f / "unet/config.json").write_bytes(b'{"a": "\xe9"}'),
        "config.json: byte 7 is not UTF-8",
    ),
    "config a list": (
        lambda f: (f / "vae/config.json").write_text("[]"),
        "vae/config.json holds no JSON object",
    ),
    "spacing": (
        lambda f: edit(f / SCHEDULER, timestep_spacing="odd"),
        "timestep_spacing is 'odd': choose one of",
    ),
    "betas": (lambda f: edit(f / SCHEDULER, beta_schedule="odd"), f"odd is not implemented.*{WHOLE}"),
    "prediction": (lambda f: edit(f / SCHEDULER, prediction_type="odd"), "Prediction type 'odd'"),
    "no tokenizer": (lambda f: shutil.rmtree(f / "tokenizer"), f"has no tokenizer, which a Stable.*{WHOLE}"),
    "tokenizer empty": (
        lambda f: [p.unlink() for p in (f / "tokenizer").iterdir()],
        "its tokenizer has 2 tokens",
    ),
    "encoder null": (
        lambda f: edit(f / "model_index.json", image_encoder=[None, None]),
        f"has no image_encoder.*{WHOLE}",
    ),
    "variants": (
        lambda f: [variant(p) for p in f.rglob("*.safetensors")],
        "but the variant model.fp16.safetensors",
    ),
    "one variant": (
        lambda f: variant(f / UNET),
        "unet holds no weights but the variant diff.*fetch the plain",
    ),
    "pointer": (
        lambda f: (f / UNET).write_text(POINTER),
        f"{UNET} is a pointer of Git LFS.*run 'git lfs pull' in",
    ),
    "pointer of index": (lambda f: (f / "model_index.json").write_text(POINTER), "is a pointer of Git LFS"),
    "no weights": (lambda f: (f / UNET).unlink(), f"unet has a config.json and no weights{WHOLE}"),
    "not weights": (lambda f: (f / UNET).write_bytes(b"not weights"), f"cannot be loaded .*{WHOLE}"),
    "half weights": (
        lambda f: (f / TEXT).write_bytes((f / TEXT).read_bytes()[:5000]),
        f"cannot be loaded .*{WHOLE}",
    ),
    "fewer weights": (lambda f: fewer_weights(f / TEXT), f"its files lack some of its weights.*{WHOLE}"),
    "fewer in denoiser": (lambda f: fewer_weights(f / UNET), f"its files lack some of its weights.*{WHOLE}"),
    "another's text": (
        lambda f: shutil.copytree(OTHER / "text_encoder", f / "text_encoder", dirs_exist_ok=True),
        "the text's width is 128, its denoiser takes 32",
    ),
    "another's eye": (
        lambda f: shutil.copytree(OTHER / "image_encoder", f / "image_encoder", dirs_exist_ok=True),
        "twice the image embedding's width is 256, its denoiser takes 64",
    ),
}
OTHER = Path(__file__).parents[2] / "data/pretrained/mini-unclip"


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_with_a_folder_is_said_at_loading(folder, tmp_path, damage):
    broken = shutil.copytree(folder, tmp_path / "unclip")
    work, sentence = DAMAGES[damage]
    work(broken)
    with pytest.raises(UserError, match=sentence) as caught:
        Generator.load(broken)
    assert str(broken) in str(caught.value) or "scheduler" in str(caught.value) or "type" in str(caught.value)
    assert "mirror" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_a_length_takes_that_of_the_encoder(folder, tmp_path, tiny):
    other = shutil.copytree(folder, tmp_path / "unclip")
    config = other / "tokenizer/tokenizer_config.json"
    given = json.loads(config.read_text())
    assert given.pop("model_max_length") == 77
    config.write_text(json.dumps(given))
    assert torch.equal(Generator.load(other).embed_text(["car"]), tiny.embed_text(["car"]))


@pytest.mark.parametrize("name", ["~/no/such/model", "./models/none", "two words", Path("none")])
def test_a_folder_that_is_not_there_is_no_hub_id(name):
    with pytest.raises(UserError, match=r"There is no folder .*: give that of a model, or a hub id"):
        Generator.load(name)


def test_a_file_is_no_model(folder):
    with pytest.raises(UserError, match=r"model_index\.json is a file: give the folder"):
        Generator.load(folder / "model_index.json")


def test_a_home_folder_is_found(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert Generator.load(f"~/{folder.name}").image_width == 2 * WIDTH


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_said(folder, device):
    with pytest.raises(UserError, match=f"There is no device '{device}' here"):
        Generator.load(folder, device=device)


def test_an_embedding_wholly_dropped_is_no_image(tiny):
    embedding = tiny.clip_embedding(images(8))
    gone = torch.arange(8) % 3 == 0
    out = tiny.condition_image(embedding * ~gone[:, None], range(8), noise_level=300)
    assert torch.equal(out[gone], tiny.no_image(int(gone.sum())))
    kept = tiny.embed_image(images(8), range(8), noise_level=300)
    assert torch.equal(out[~gone], kept[~gone])
    assert torch.equal(tiny.embed_image(images(2), SEEDS, Dropout(1.0)), tiny.no_image(2))


def test_bars_of_loading_are_as_before(folder):
    diffusers_logging.disable_progress_bar()
    Generator.load(folder)
    assert not diffusers_logging.is_progress_bar_enabled()
    diffusers_logging.enable_progress_bar()
    Generator.load(folder)
    assert diffusers_logging.is_progress_bar_enabled()


@pytest.mark.parametrize("model", sorted(WITHDRAWN))
def test_a_withdrawn_model_is_said_to_be_and_its_mirror_named(monkeypatch, tmp_path, model):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=f"withdrew it from the hub, and the mirror '{WITHDRAWN[model]}'"):
        Generator.load(model)


@pytest.mark.parametrize("cfg", [7.5, 1.0])
def test_stable_diffusion_without_feedback_is_diffusers_own_pipeline(tiny_text, cfg):
    assert tiny_text.pipe.scheduler.config.prediction_type == "epsilon"
    pipe, z = tiny_text.pipe, tiny_text.noise(SEEDS)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        prompt=PROMPTS, latents=z, guidance_scale=cfg, num_inference_steps=5, eta=0.0, output_type="pt"
    ).images
    assert_same_images(tiny_text, PROMPTS, tiny_text.no_image(2), cfg, z, theirs)


def test_the_folder_names_its_family(tiny, tiny_text):
    assert [type(g.pipe).__name__ for g in (tiny, tiny_text)] == list(FAMILIES)[:2]
    assert [g.image_width for g in (tiny, tiny_text)] == [2 * WIDTH, 0]
    assert tiny_text.no_image(3).shape == (3, 0)


def test_stable_diffusion_is_guided_like_unclip(tiny_text, guide_network):
    seen = Feedback(guide_network, {"entropy": entropy}, 4, Guidance(0.1, every=1))
    plan = Plan(PROMPTS, tiny_text.no_image(2), torch.tensor([0, 1]), SEEDS)
    made, plain = (synthesise(tiny_text, plan, 3.0, feedback) for feedback in (seen, None))
    assert made.non_finite.tolist() == [0, 0]
    assert (made.images != plain.images).any()


def test_a_text_only_model_refuses_images(tiny, tiny_text):
    said = "StableDiffusionPipeline takes text only.*image: true"
    with pytest.raises(UserError, match=said):
        tiny_text.embed_image(images(), SEEDS)
    with pytest.raises(UserError, match=said):
        tiny_text.condition_image(torch.zeros(2, WIDTH), SEEDS)
    with pytest.raises(UserError, match="image condition has 64 numbers, the model takes 0"):
        tiny_text.predict(tiny_text.embed_text(PROMPTS), tiny.no_image(2), 3.0)


@pytest.mark.parametrize("name", ["PixArtAlphaPipeline", None, ["pipeline.py", "StableDiffusionPipeline"]])
def test_another_family_is_named(sd_folder, tmp_path, name):
    other = shutil.copytree(sd_folder, tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps({**index, "_class_name": name}))
    with pytest.raises(UserError, match="StableUnCLIPImg2ImgPipeline or a StableDiffusionPipeline"):
        Generator.load(other)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_pickles_are_refused(sd_folder, tmp_path, part):
    other = shutil.copytree(sd_folder, tmp_path / "other")
    (weights,) = (other / part).glob("*.safetensors")
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(UserError, match=rf"{part} holds its weights as a pickle") as caught:
        Generator.load(other)
    assert "\n" not in str(caught.value)


def test_a_model_with_its_own_code_is_refused(sd_folder, tmp_path):
    other = shutil.copytree(sd_folder, tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps({**index, "unet": ["own", "Own"]}))
    (other / "unet" / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    with pytest.raises(UserError, match="cannot be loaded"):
        Generator.load(other)
    assert not (tmp_path / "ran").exists()


def test_attention_is_torchs_own(tiny, tiny_text):
    for g in (tiny, tiny_text):
        processors = [*g.pipe.unet.attn_processors.values(), *g.pipe.vae.attn_processors.values()]
        assert {type(p) for p in processors} == {AttnProcessor2_0}
        assert g.pipe.text_encoder.config._attn_implementation == "sdpa"
    assert tiny.pipe.image_encoder.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("through_network", [True, False])
def test_half_precision_stays_close_to_float32(folder, guide_network, dtype, through_network):
    made = {}
    seen = Feedback(guide_network, {"entropy": entropy}, 4, Guidance(0.03, through_network=through_network))
    for precision in (torch.float32, dtype):
        g = Generator.load(folder, n_steps=5, dtype=precision)
        assert g.dtype == precision
        assert {p.dtype for p in g.pipe.vae.parameters()} == {torch.float32}
        plan = Plan(PROMPTS, g.embed_image(images(), SEEDS), torch.tensor([0, 1]), SEEDS)
        made[precision] = synthesise(g, plan, 3.0, seen)
    exact, half = made.values()
    assert half.non_finite.tolist() == [0, 0]
    off = (exact.images.float() - half.images.float()).abs()
    assert 0 < off.mean() < 4
    torch.testing.assert_close(half.before, exact.before, rtol=0.02, atol=0)


def test_the_autoencoder_is_read_in_float32_and_not_rounded(folder):
    exact, half = (Generator.load(folder, dtype=dtype).pipe.vae for dtype in (torch.float32, torch.bfloat16))
    for a, b in zip(exact.parameters(), half.parameters(), strict=True):
        assert torch.equal(a, b)


def test_guidance_looks_through_the_tiny_decoder_and_images_do_not(folder, tmp_path, guide_network):
    g = Generator.load(folder, n_steps=5, tiny_decoder=tiny_decoder(tmp_path / "tiny"))
    plain = Generator.load(folder, n_steps=5)
    z, label = g.noise(SEEDS), torch.tensor([0, 1])
    assert torch.equal(g.decode(z), plain.decode(z))
    assert torch.equal(plain.decode(z), plain.decode_for_guidance(z))
    seen = g.decode_for_guidance(z)
    assert seen.shape == g.decode(z).shape
    assert not torch.allclose(seen, g.decode(z))
    calls = []
    handle = g.pipe.vae.decoder.register_forward_hook(lambda *_: calls.append(1))
    predict = g.predict(g.embed_text(PROMPTS), g.no_image(2), 3.0)
    guided = guide(predict, guide_network, entropy, label, g.schedule, Guidance(0.1), g.decode_for_guidance)
    out = ddim(guided, z, g.schedule)
    handle.remove()
    assert not calls
    assert torch.isfinite(out).all()
    assert not torch.allclose(out, ddim(predict, z, g.schedule))
    assert guided.non_finite.tolist() == [0, 0]


def test_a_tiny_decoder_of_other_latents_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="takes latents of 8 channels, the generator's have 4"):
        Generator.load(folder, tiny_decoder=tiny_decoder(tmp_path / "tiny", channels=8))


@pytest.mark.parametrize("kind", ["vae", "unet", "empty"])
def test_another_model_is_no_tiny_decoder(folder, tmp_path, kind):
    (tmp_path / "empty").mkdir()
    named = {"vae": "class AutoencoderKL", "unet": "class UNet2DConditionModel", "empty": "no file named"}
    with pytest.raises(UserError, match=rf"tiny decoder '.*{kind}' cannot be loaded .*{named[kind]}.*taesd"):
        Generator.load(folder, tiny_decoder=(tmp_path if kind == "empty" else folder) / kind)


def test_the_guide_sees_images_at_its_own_size(tiny, guide_network):
    sides = []

    def guide_of_32(x):
        sides.append(tuple(x.shape[-2:]))
        return guide_network(x)

    seen = Feedback(at_resolution(guide_of_32, 32), {"entropy": entropy}, 4)
    plan = Plan(PROMPTS, tiny.no_image(2), torch.tensor([0, 1]), SEEDS)
    made = synthesise(tiny, plan, 3.0, seen)
    assert made.images.shape[1:3] == (64, 64)
    assert set(sides) == {(32, 32)}
    assert made.non_finite.tolist() == [0, 0]

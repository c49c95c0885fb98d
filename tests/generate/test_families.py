"""SDXL, Stable Diffusion 3 and FLUX.1 behind the one door, on random pipelines of their own classes."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import sheet
import tiny_families
import tiny_unclip
import torch
from diffusers import AutoencoderTiny, EDMEulerScheduler, FluxPipeline, FluxPriorReduxPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_families import SIDE, TOKENS

import fgsynth
from fgsynth.generate.dropout import Dropout
from fgsynth.generate.generator import Generator
from fgsynth.generate.pipelines import folds_cfg
from fgsynth.generate.synthesise import Feedback, Plan, synthesise
from fgsynth.guidance.criteria import entropy
from fgsynth.guidance.feedback import Guidance, guide
from fgsynth.guidance.samplers import ddim
from fgsynth.models.networks import small
from fgsynth.utils.errors import UserError

PROMPTS, SEEDS, LABEL = ["apple in water", "car"], [11, 12], torch.tensor([0, 1])
NAMES = ["sdxl", "sd3", "flux"]
WIDTH = tiny_unclip.WIDTH
SHAPES = {"sdxl": (WIDTH,), "sd3": (TOKENS, WIDTH), "flux": (TOKENS, 2 * WIDTH)}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {name: getattr(tiny_families, name)(tmp_path_factory.mktemp(name)) for name in NAMES}


@pytest.fixture(scope="module")
def tiny(models):
    return {name: Generator.load(model, 3, side=SIDE) for name, model in models.items()}


@pytest.fixture(scope="module")
def look():
    return small(4).eval().requires_grad_(False)


def photos(n=2):
    return [np.random.default_rng(i).integers(0, 256, (48, 48, 3), dtype=np.uint8) for i in range(n)]


def ours(generator, image, cfg, prompts=PROMPTS, seeds=SEEDS):
    predict = generator.predict(generator.embed_text(prompts), image, cfg)
    with torch.no_grad():
        z = ddim(predict, generator.noise(seeds), generator.schedule)
        return (generator.decode(z) / 2 + 0.5).clamp(0, 1)


def theirs(name, g, cfg, embedding=None):
    """The pipeline's own call from the same noise and embeddings, one by one: it mixes images of a batch."""
    pipe = g.pipe
    pipe.set_progress_bar_config(disable=True)
    made = []
    for i, z in enumerate(g.noise(SEEDS).split(1)):
        given = {"prompt": PROMPTS[i]}
        if embedding is not None and name == "flux":
            given = redux_prompts(pipe, PROMPTS[i], photos()[i])
        elif embedding is not None:
            one = embedding[i : i + 1]
            both = torch.cat([torch.zeros_like(one), one]) if cfg > 1 else one
            given["ip_adapter_image_embeds"] = [both[:, None]] if name == "sdxl" else both
        if name == "flux":
            z = FluxPipeline._pack_latents(z, *z.shape)
        made += pipe(
            latents=z, guidance_scale=cfg, height=SIDE, width=SIDE, output_type="pt",
            num_inference_steps=len(g.schedule.steps), **given,
        ).images  # fmt: skip
    return torch.stack(made)


def redux_prompts(pipe, prompt, photo):
    names = (
        "image_encoder", "feature_extractor", "image_embedder", "text_encoder", "tokenizer", "text_encoder_2",
        "tokenizer_2",
    )  # fmt: skip
    prior = FluxPriorReduxPipeline(**{name: getattr(pipe, name) for name in names})
    return dict(prior([photo], prompt=[prompt]))


@pytest.mark.parametrize("cfg", [4.0, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_without_feedback_it_is_diffusers_own_call(tiny, name, cfg):
    g = tiny[name]
    embedding = g._embedded(photos())
    own = theirs(name, g, cfg, embedding)
    torch.testing.assert_close(ours(g, g.embed_image(photos(), SEEDS), cfg), own, rtol=0, atol=1e-4)
    assert own.std() > 0.01


@pytest.mark.parametrize("name", [*NAMES, "without T5", "schnell"])
def test_without_an_adapter_it_takes_text_only(models, tmp_path, name):
    made = {
        "without T5": lambda: tiny_families.sd3(tmp_path, with_t5=False),
        "schnell": lambda: tiny_families.flux(tmp_path, distilled=False),
    }
    model = made[name]() if name in made else models[name]
    g, cfg = Generator.load(model.split(" + ")[0], 3, side=SIDE), 1.0 if name == "schnell" else 4.0
    family = {"without T5": "sd3", "schnell": "flux"}.get(name, name)
    torch.testing.assert_close(ours(g, g.no_image(2), cfg), theirs(family, g, cfg), rtol=0, atol=1e-4)
    assert g.image_width == 0
    with pytest.raises(UserError, match=r"takes text only.*'MODEL \+ ADAPTER'"):
        g.embed_image(photos(), SEEDS)


@pytest.mark.parametrize("name", NAMES)
def test_the_criterion_rises_by_either_gradient(tiny, look, name):
    g = tiny[name]
    plan = Plan(PROMPTS, g.embed_image(photos(), SEEDS, Dropout(0.5)), LABEL, SEEDS)
    plain = synthesise(g, plan, 3.0)
    with torch.no_grad():
        before = entropy(*look(plain.images.permute(0, 3, 1, 2) / 127.5 - 1), LABEL)
    for exact in (True, False):
        settings = Guidance(0.1, every=1, through_network=exact)
        made = synthesise(g, plan, 3.0, Feedback(look, {"entropy": entropy}, 4, settings))
        assert (made.after > before).all()
        assert made.record.shape == (2, 3)
        assert torch.equal(made.record[:, 0], made.before)
        assert made.non_finite.tolist() == [0, 0]
        assert made.images.shape == (2, SIDE, SIDE, 3)


@pytest.mark.parametrize("name", NAMES)
def test_the_exact_gradient_is_that_of_the_criterion(tiny, look, name):
    g = tiny[name]
    predict = g.predict(g.embed_text(PROMPTS), g.embed_image(photos(), SEEDS), 3.0)
    guided = guide(predict, look, entropy, LABEL, g.schedule, Guidance(), g.decode)
    t, z = g.schedule.steps[1][0], g.noise(SEEDS)
    gradient = guided.gradient(z, t)[2]
    step = 0.02 * gradient / gradient.norm()

    def criterion(latent):
        with torch.no_grad():
            return float(entropy(*look(g.decode(predict(latent, t)[0])), LABEL).sum())

    slope = (criterion(z + step) - criterion(z - step)) / (2 * 0.02)
    assert slope == pytest.approx(float(gradient.norm()), rel=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_the_image_condition_is_own_to_its_seed_and_dropout_changes_it(tiny, name):
    g = tiny[name]
    assert g.family.image_shape == SHAPES[name]
    whole, half = (g.embed_image(photos(), SEEDS, Dropout(p)) for p in (0.0, 0.5))
    assert half.shape == (2, *SHAPES[name])
    torch.testing.assert_close(half[1:], g.embed_image(photos()[1:], SEEDS[1:], Dropout(0.5)))
    assert not torch.allclose(half[1:], g.embed_image(photos()[1:], [99], Dropout(0.5)))
    one, two, none = (ours(g, image, 3.0) for image in (whole, half, g.no_image(2)))
    assert not torch.allclose(one, two)
    assert not torch.allclose(two, none)
    assert g.clip_embedding(photos()).shape == (2, WIDTH)
    with pytest.raises(UserError, match="without noise: set noise_level to 0"):
        g.embed_image(photos(), SEEDS, noise_level=5)


def test_dropout_takes_the_same_units_of_every_token():
    out = Dropout(0.5)(torch.ones(3, 5, 40), range(3))
    assert torch.equal(out, out[:, :1].expand_as(out))
    assert torch.equal(out[:, 0], Dropout(0.5)(torch.ones(3, 40), range(3)))


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_depend_on_its_batch(tiny, look, name):
    g = tiny[name]
    plan = Plan(PROMPTS, g.embed_image(photos(), SEEDS), LABEL, SEEDS)
    feedback = Feedback(look, {"entropy": entropy}, 4, Guidance(0.1, every=1))
    together, alone = (synthesise(g, plan, 3.0, feedback, batch=n).images.int() for n in (2, 1))
    assert (together - alone).abs().max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_large_images_are_checkpointed_and_decoded_one_by_one(models, look, monkeypatch, name):
    def made():
        g = Generator.load(models[name], 3, side=SIDE)
        plan = Plan(PROMPTS, g.embed_image(photos(), SEEDS), LABEL, SEEDS)
        return g, synthesise(g, plan, 3.0, Feedback(look, {"entropy": entropy}, 4, Guidance(0.1, every=2)))

    _, plain = made()
    monkeypatch.setattr("fgsynth.generate.generator.LARGE", 1)
    g, large = made()
    assert g.large
    assert g.family.denoiser.is_gradient_checkpointing
    assert (plain.images.int() - large.images.int()).abs().max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_decodes_in_float32(models, look, name):
    g = Generator.load(models[name], 3, side=SIDE, dtype=torch.bfloat16)
    assert g.dtype == torch.bfloat16
    assert {p.dtype for p in g.pipe.vae.parameters()} == {torch.float32}
    plan = Plan(PROMPTS, g.embed_image(photos(), SEEDS), LABEL, SEEDS)
    made = synthesise(g, plan, 3.0, Feedback(look, {"entropy": entropy}, 4, Guidance(0.1, every=1)))
    assert made.non_finite.tolist() == [0, 0]
    exact = ours(Generator.load(models[name], 3, side=SIDE), g.no_image(2).float(), 3.0)
    assert (ours(g, g.no_image(2), 3.0) - exact).abs().mean() < 0.02


def tiny_decoder(folder):
    """A random TAEF1 of few blocks, four pixels to a latent, with a shift of its own."""
    torch.manual_seed(1)
    AutoencoderTiny(
        encoder_block_out_channels=(16,) * 3, decoder_block_out_channels=(16,) * 3,
        num_encoder_blocks=(1,) * 3, num_decoder_blocks=(1,) * 3, latent_channels=4, shift_factor=0.5,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_guidance_looks_through_a_tiny_decoder(models, tmp_path):
    g = Generator.load(models["flux"], 3, side=SIDE, tiny_decoder=tiny_decoder(tmp_path))
    z = g.noise(SEEDS)
    torch.testing.assert_close(g.decode_for_guidance(z), g.tiny.decode(z + 0.5).sample)
    shifted = g.pipe.vae.decode(z / g.pipe.vae.config.scaling_factor + 0.1).sample
    torch.testing.assert_close(g.decode(z), shifted)


@pytest.mark.parametrize("name", ["unclip", *NAMES])
def test_a_loaded_pipeline_is_guided_in_one_call_and_left_as_it_was(models, look, tmp_path, name):
    model = models[name] if name in NAMES else tiny_unclip.save(tmp_path)
    g = Generator.load(model, 3, side=SIDE)
    image = g.embed_image(photos(), range(2), Dropout(0.5))
    settings = Guidance(0.1, every=1, through_network=False)
    feedback = Feedback(look, {"entropy": entropy}, 4, settings)
    door = synthesise(g, Plan(PROMPTS, image, LABEL, range(2)), 3.0, feedback)
    pipe, redux = loaded(model, name)
    scheduler = pipe.scheduler

    def made():
        return fgsynth.guided(
            pipe, look, entropy, PROMPTS, [0, 1], images=photos(), dropout=Dropout(0.5), redux=redux,
            guidance=settings, n_steps=3, side=SIDE,
        )  # fmt: skip

    once = made()
    assert (once.images.int() - door.images.int()).abs().max() <= 1
    torch.testing.assert_close(once.record, door.record)
    assert pipe.scheduler is scheduler
    torch.nn.Module.to(pipe.vae, torch.bfloat16)
    half = made()
    assert pipe.vae.dtype == torch.bfloat16
    assert half.non_finite.tolist() == [0, 0]


def loaded(model, name):
    """A pipeline as its user loads it, and Redux."""
    g = Generator.load(model, 3, side=SIDE)
    pipe = g.pipe
    if name != "flux":
        return pipe, None
    parts = pipe.image_encoder, pipe.feature_extractor, pipe.image_embedder
    redux = FluxPriorReduxPipeline(
        image_encoder=parts[0], feature_extractor=parts[1], image_embedder=parts[2]
    )
    return FluxPipeline.from_pretrained(model.split(" + ")[0]), redux


def edit(folder, part, **changes):
    path = folder / "base" / part
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def other_eye(folder):
    tiny_families.clip_eye(2 * WIDTH).save_pretrained(folder / "image_encoder")


def renamed(folder, old, new):
    path = folder / "ip-adapter.safetensors"
    save_file({name.replace(old, new): value for name, value in load_file(path).items()}, path)


def of_other_base(folder):
    other = folder / "other"
    other.mkdir()
    tiny_families.sdxl(other, width=WIDTH)
    shutil.copy(other / "ip-adapter.safetensors", folder)


def fewer_layers(folder):
    path = folder / "ip-adapter.safetensors"
    save_file({k: v for k, v in load_file(path).items() if not k.startswith("ip_adapter.2.")}, path)


FLOW = "scheduler/scheduler_config.json"
MISTAKES = {
    "adapter of another base": ("sdxl", of_other_base, "image tokens are 32 wide, the denoiser takes 64"),
    "encoder of another adapter": ("sdxl", other_eye, "image embedding's width is 64, its denoiser takes 32"),
    "adapter of fewer layers": ("sd3", fewer_layers, "made for a denoiser of fewer layers"),
    "an adapter of images as they are": (
        "sdxl", lambda f: renamed(f, "image_proj.proj.", "image_proj.proj.0."), "adapter .* cannot be loaded",
    ),
    "no encoder": (
        "sd3", lambda f: shutil.rmtree(f / "image_encoder"), "adapter .* cannot be loaded.*for this model",
    ),
    "Redux of another width": (
        "flux", lambda f: tiny_families.redux(WIDTH).save_pretrained(f / "redux"),
        "width of Redux's tokens is 32, its denoiser takes 64",
    ),
    "no T5 in FLUX": (
        "flux", lambda f: edit(f, "model_index.json", text_encoder_2=[None, None]),
        "has no text_encoder_2, which a FluxPipeline needs",
    ),
    "text of another model": (
        "sd3", lambda f: edit(f, "transformer/config.json", joint_attention_dim=48), "cannot be loaded",
    ),
    "an EDM scheduler": (
        "sdxl", lambda f: EDMEulerScheduler().save_pretrained(f / "base/scheduler"),
        "neither a diffusion by its betas nor a flow",
    ),
    "sigmas inverted": ("sd3", lambda f: edit(f, FLOW, invert_sigmas=True), "inverts its sigmas"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_wrong_is_said_in_one_sentence(models, tmp_path, mistake):
    name, work, sentence = MISTAKES[mistake]
    source = models[name].split(" + ")[0].removesuffix("/base")
    folder = shutil.copytree(source, tmp_path / "model")
    work(folder)
    if mistake == "an EDM scheduler":
        edit(folder, "model_index.json", scheduler=["diffusers", "EDMEulerScheduler"])
    with pytest.raises(UserError, match=sentence) as caught:
        Generator.load(models[name].replace(source, str(folder)), 3, side=SIDE)
    assert "\n" not in str(caught.value)


def test_redux_takes_no_image_encoder_of_another(models):
    with pytest.raises(UserError, match="Redux has its image encoder, name none"):
        Generator.load(f"{models['flux']} + google/siglip", 2)


def test_a_gated_adapter_is_told_with_its_licence(models, monkeypatch):
    def refused(*_, **__):
        raise OSError("403 Client Error")

    monkeypatch.setattr("diffusers.FluxPriorReduxPipeline.from_pretrained", refused)
    with pytest.raises(UserError, match="agreement to its licence: give it on the model's page"):
        Generator.load(f"{models['flux'].split(' + ')[0]} + black-forest-labs/FLUX.1-Redux-dev", 2)


def test_an_unclip_takes_no_adapter(models, tmp_path):
    adapter = models["sdxl"].split(" + ")[1]
    with pytest.raises(UserError, match="a StableUnCLIPImg2ImgPipeline takes none"):
        Generator.load(f"{tiny_unclip.save(tmp_path)} + {adapter}")


@pytest.mark.parametrize("model", ["stabilityai/stable-diffusion-3.5-large", "black-forest-labs/FLUX.1-dev"])
def test_a_gated_model_is_said_to_be(monkeypatch, tmp_path, model):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        UserError, match="agreement to its licence: give it on the model's page, then 'hf auth login'"
    ):
        Generator.load(model)


def test_cfg_on_a_network_distilled_without_it_is_refused(models, tmp_path, tiny):
    schnell = Generator.load(tiny_families.flux(tmp_path, distilled=False), 3, side=SIDE)
    text = schnell.embed_text(PROMPTS)
    with pytest.raises(
        UserError, match=r"without classifier-free guidance.*set cfg and cfg_text to 1 instead of 3"
    ):
        schnell.predict(text, schnell.no_image(2), 3.0)
    calls = []
    handle = tiny["flux"].family.denoiser.register_forward_hook(
        lambda _, given, __: calls.append(len(given[0]))
    )
    ours(tiny["flux"], tiny["flux"].no_image(2), 3.0)
    handle.remove()
    assert calls == [2, 2, 2]  # one evaluation a step
    assert folds_cfg(models["flux"])
    assert not folds_cfg(models["sd3"])
    assert not folds_cfg("somebody/not-here")


def test_the_scale_reaches_a_network_that_takes_it(tiny):
    g = tiny["flux"]
    assert not torch.allclose(ours(g, g.no_image(2), 2.0), ours(g, g.no_image(2), 5.0), atol=1e-5)


def test_a_prompt_longer_than_any_encoder_takes_is_named(tiny):
    with pytest.raises(UserError, match=r"'apple apple.*has 102 tokens, the model takes 77"):
        tiny["sd3"].embed_text(["apple " * 100])


@pytest.mark.parametrize(("name", "side"), [("sd3", 36), ("flux", 36), ("sdxl", 30)])
def test_a_side_that_is_no_whole_number_of_patches(models, name, side):
    with pytest.raises(UserError, match=f"Images of {side} pixels: choose a multiple of"):
        Generator.load(models[name], 3, side=side)


def test_other_steps_are_those_of_a_generator_loaded_with_them(models, tiny):
    fresh = Generator.load(models["flux"], 5, side=SIDE)
    assert tiny["flux"].in_steps(5).schedule == fresh.schedule
    larger = Generator.load(models["flux"], 5, side=2 * SIDE)
    assert larger.schedule != fresh.schedule  # shifted by the tokens of an image


def test_images_of_another_shape_are_refused(tiny):
    g = tiny["sd3"]
    with pytest.raises(UserError, match="has 32 numbers, the model takes 16 x 32"):
        g.predict(g.embed_text(PROMPTS), tiny["sdxl"].no_image(2), 3.0)


def test_a_flow_starts_without_signal_which_raw_scaling_needs(tiny, look):
    g = tiny["sd3"]
    plan = Plan(PROMPTS, g.no_image(2), LABEL, SEEDS)
    raw = Feedback(look, {"entropy": entropy}, 4, Guidance(0.1, scaling="raw"))
    with pytest.raises(UserError, match=r"scaling 'raw' divides by the signal.*set start to 1"):
        synthesise(g, plan, 3.0, raw)
    later = replace(raw, guidance=Guidance(0.1, scaling="raw", start=1, every=1))
    assert synthesise(g, plan, 3.0, later).non_finite.tolist() == [0, 0]


def test_words_are_learned_for_one_encoder_only(tiny):
    from fgsynth.config.schema import Inversion
    from fgsynth.generate.textual_inversion import invert

    with pytest.raises(UserError, match="reads prompts by several encoders"):
        invert(tiny["sdxl"], photos(), "apple", Inversion(updates=1), 0)


def test_dropout_of_no_image_is_refused(tiny, look):
    with pytest.raises(UserError, match="Dropout has no effect without images"):
        fgsynth.guided(tiny["sdxl"].pipe, look, entropy, PROMPTS, [0, 1], dropout=Dropout(0.5))
    with pytest.raises(UserError, match="A AutoencoderTiny is not supported"):
        fgsynth.guided(AutoencoderTiny(), look, entropy, PROMPTS, [0, 1])


def test_the_sheet_of_every_family_is_the_documents():
    rows = sheet.sheet()
    assert list(rows) == list(sheet.MODELS)
    for name, (plain, made, loaded) in rows.items():
        assert (plain != made).any(), name
        assert np.abs(made.astype(int) - loaded).max() <= 1, name
    with Image.open(sheet.FILE) as kept:
        off = np.abs(
            np.asarray(kept.convert("RGB"), dtype=float) - np.asarray(sheet.drawn(rows), dtype=float)
        )
    # Processors round otherwise, and random networks pass it on.
    assert off.mean() < 2


SNIPPETS = {
    "StableUnCLIPImg2ImgPipeline": "unclip",
    "StableDiffusionXLPipeline": "sdxl",
    "FluxPipeline": "flux",
}


@pytest.mark.parametrize("kind", SNIPPETS)
def test_the_documents_recipes_run(models, root, look, tmp_path, monkeypatch, kind):
    text = (root / "docs" / "generators.md").read_text()
    (code,) = [
        one for one in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S) if f"{kind}.from_pre" in one
    ]
    assert len(code.strip().splitlines()) <= 11
    name = SNIPPETS[kind]
    model = tiny_unclip.save(tmp_path) if name == "unclip" else models[name]
    pipe, redux = loaded(model, name)
    small = AutoencoderTiny.from_pretrained(tiny_decoder(tmp_path / "tiny"))
    there = {kind: pipe, "FluxPriorReduxPipeline": redux, "AutoencoderTiny": small}
    for each, stand_in in there.items():
        monkeypatch.setattr(f"diffusers.{each}.from_pretrained", lambda *_, made=stand_in, **__: made)
    if name == "sdxl":
        monkeypatch.setattr(pipe, "load_ip_adapter", lambda *_, **__: None)
    monkeypatch.setattr(pipe, "to", lambda *_: pipe)
    real = fgsynth.guided
    monkeypatch.setattr(
        fgsynth, "guided", lambda *a, **k: real(*a, **{**k, "n_steps": 2, "side": SIDE}), raising=False
    )
    given = {"device": "cpu", "classifier": look, "prompts": PROMPTS, "labels": [0, 1], "photos": photos()}
    exec(code, given)
    assert given["made"].images.shape == (2, SIDE, SIDE, 3)
    assert given["made"].record.shape[0] == 2

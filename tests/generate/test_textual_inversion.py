import pytest
import torch
from safetensors.torch import load_file
from tiny_unclip import WIDTH, save

from fgsynth.config.schema import Inversion, LongTail, validated
from fgsynth.data import mini
from fgsynth.generate import textual_inversion
from fgsynth.generate.generator import Generator
from fgsynth.generate.textual_inversion import (
    denoising_loss,
    invert,
    latents,
    learn_words,
    start,
    text_states,
)
from fgsynth.pretrain.files import FOLDER
from fgsynth.utils.cache import weights_digest
from fgsynth.utils.errors import UserError

TEMPLATE = "* in water"
BRIEF = Inversion(updates=2, batch=2, template=TEMPLATE)
WORLD = LongTail(n_max=101, n_min=3, strata=(8, 9, 7), n_val=1, n_test=1, modes=(1.0,), seed=0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return Generator.load(save(tmp_path_factory.mktemp("unclip")), n_steps=5)


@pytest.fixture(scope="module")
def unclip(root):
    return Generator.load(root / FOLDER, 12)


def images(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    return list(torch.randint(0, 256, (n, 48, 64, 3), generator=g, dtype=torch.uint8))


def test_a_word_with_the_embedding_of_another_says_the_same(tiny):
    said = text_states(tiny, TEMPLATE, start(tiny, "apple"))
    torch.testing.assert_close(said, tiny.embed_text(["apple in water"])[0])
    assert not torch.allclose(said, tiny.embed_text(["car in water"])[0])


def test_a_name_of_several_tokens_starts_at_their_mean(tiny):
    each = torch.stack([start(tiny, word) for word in ("apple", "banana", "car")])
    torch.testing.assert_close(start(tiny, "apple banana car"), each.mean(0))


def test_the_loss_is_the_mean_error_of_the_velocity(tiny):
    z, noise = (torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    vector, t = start(tiny, "car"), 300
    abar = tiny.pipe.scheduler.alphas_cumprod[t]
    noised, velocity = (
        abar.sqrt() * z + (1 - abar).sqrt() * noise,
        abar.sqrt() * noise - (1 - abar).sqrt() * z,
    )
    text = tiny.embed_text(["car in water"] * 3)
    with torch.no_grad():
        out = tiny.pipe.unet(noised, t, text, class_labels=tiny.no_image(3)).sample
        ours = denoising_loss(tiny, TEMPLATE, vector, z, noise, t)
    torch.testing.assert_close(ours, (out - velocity).square().mean(), rtol=1e-4, atol=1e-6)


def test_latents_are_of_the_generators_own_size(tiny):
    z = latents(tiny, images(3))
    assert z.shape == (3, 4, 8, 8)
    assert not torch.equal(z[0], z[1])
    # Of a wide image the centre, whose edges are filtered with what lies beyond them.
    (wide,) = images(1)
    centre, left = (latents(tiny, [wide[:, i : i + 48]]) for i in (8, 0))
    torch.testing.assert_close(centre, z[:1], rtol=0, atol=0.01)
    assert (left - z[:1]).abs().max() > 0.02


def test_the_seed_decides_the_word_and_the_networks_stay_as_they_are(tiny):
    before = [weights_digest(part) for part in (tiny.pipe.unet, tiny.pipe.text_encoder)]
    first, again, other = (invert(tiny, images(3), "car", BRIEF, seed) for seed in (0, 0, 1))
    assert first.shape == (WIDTH,)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert [weights_digest(part) for part in (tiny.pipe.unet, tiny.pipe.text_encoder)] == before
    assert not any(p.requires_grad for p in tiny.pipe.text_encoder.parameters())


def test_only_the_first_images_are_learned_from(tiny):
    some = BRIEF.model_copy(update={"most": 2})
    assert torch.equal(invert(tiny, images(2), "car", some, 0), invert(tiny, images(4), "car", some, 0))


def test_times_cover_the_whole_schedule():
    times = textual_inversion._times(1000, 50, 0)
    assert sorted(t // 20 for t in times) == list(range(50))
    assert times != sorted(times)


def test_a_learned_word_denoises_its_images_better_than_the_name(unclip):
    bench = mini.imagenet_lt(WORLD)
    rows = bench.manifest.rows("train")
    label = int(bench.manifest.counts().argmax())
    shown = list(bench.images(rows[rows["label"] == label].head(24).reset_index(drop=True)))
    name = bench.manifest.classes[label]
    asked = Inversion(updates=40, rate=0.01, batch=8, template="*")
    learned = invert(unclip, shown, name, asked, 0)
    z = latents(unclip, shown)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(9))

    @torch.no_grad()
    def loss(vector):
        return sum(float(denoising_loss(unclip, "*", vector, z, noise, t)) for t in (300, 500, 700, 900))

    assert loss(learned) < loss(start(unclip, name))


def test_words_that_are_there_are_not_learned_again(tiny, tmp_path, monkeypatch):
    words, asked = ["apple", "car"], []
    real = textual_inversion.invert

    def counting(generator, shown, word, *rest):
        asked.append(word)
        return real(generator, shown, word, *rest)

    monkeypatch.setattr(textual_inversion, "invert", counting)
    taught = learn_words(tiny, words, lambda i: images(2, i), BRIEF, 0, tmp_path)
    assert asked == words
    (tmp_path / "00001.safetensors").unlink()
    again = learn_words(tiny, words, lambda i: images(2, i), BRIEF, 0, tmp_path)
    assert asked == [*words, "car"]
    assert torch.equal(again.embed_text(words), taught.embed_text(words))
    vector = load_file(tmp_path / "00000.safetensors")["vector"]
    torch.testing.assert_close(taught.embed_text(["apple"])[0], text_states(tiny, TEMPLATE, vector))
    # Other prompts, the empty one among them, mean what they did; the first generator learned nothing.
    torch.testing.assert_close(taught.embed_text(["", "banana"]), tiny.embed_text(["", "banana"]))
    assert not torch.allclose(taught.embed_text(["apple"]), tiny.embed_text(["apple"]))


def test_what_cannot_be_learned_is_said(tiny, tmp_path):
    with pytest.raises(UserError, match="no images to learn the word 'car'"):
        invert(tiny, [], "car", BRIEF, 0)
    with pytest.raises(UserError, match="does not keep '\\*' as one token of the template 'car'"):
        text_states(tiny, "car", start(tiny, "car"))
    with pytest.raises(UserError, match="The name '' has no tokens"):
        start(tiny, "")
    with pytest.raises(UserError, match="not finite: lower the rate"):
        invert(tiny, images(2), "car", BRIEF.model_copy(update={"updates": 4, "rate": 1e30}), 0)
    (tmp_path / "00000.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"00000.safetensors is damaged: remove it"):
        learn_words(tiny, ["car"], lambda i: images(2, i), BRIEF, 0, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"updates": 0}, "inversion: key 'updates' is 0: input should be greater than or equal to 1"),
        ({"batch": 0}, "'batch' is 0"),
        ({"most": 0}, "'most' is 0"),
        ({"rate": 0.0}, "'rate' is 0.0: input should be greater than 0"),
        ({"rate": float("inf")}, "'rate' is inf: input should be a finite number"),
        ({"template": "a photo"}, "'template' is 'a photo': must have one word '\\*'"),
        ({"template": "* and *"}, "must have one word"),
    ],
)
def test_settings_out_of_range_are_named(wrong, said):
    with pytest.raises(UserError, match=said):
        validated(Inversion, wrong, "inversion")

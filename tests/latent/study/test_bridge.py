import pytest
import torch
from tiny_unclip import WIDTH, save

from fgsynth.generate.generator import Generator
from fgsynth.generate.synthesise import Plan, synthesise
from fgsynth.latent.study.bridge import decode_features, image_features
from fgsynth.utils.errors import UserError

SEEDS = [5, 6, 7]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return Generator.load(save(tmp_path_factory.mktemp("unclip")), n_steps=4)


@pytest.fixture(scope="module")
def real():
    return torch.randint(256, (3, 40, 40, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.fixture(scope="module")
def features(tiny, real):
    return image_features(tiny, real)


def test_features_of_images_are_clips_own(tiny, real, features):
    assert features.shape == (3, WIDTH)
    assert features.dtype == torch.float32
    assert torch.equal(features, tiny.clip_embedding(list(real.numpy())))


def test_decoding_a_real_feature_is_conditioning_on_its_image(tiny, real, features):
    prompts = ["apple", "car", "banana"]
    image = tiny.embed_image(list(real), SEEDS)
    made = synthesise(tiny, Plan(prompts, image, torch.zeros(3, dtype=torch.long), SEEDS), 2.0)
    decoded = decode_features(tiny, features, SEEDS, prompts, cfg=2.0)
    assert decoded.dtype == torch.uint8
    assert decoded.shape == (3, 64, 64, 3)
    assert torch.equal(decoded, made.images)


def test_without_prompts_the_text_is_empty(tiny, features):
    assert torch.equal(
        decode_features(tiny, features, SEEDS), decode_features(tiny, features, SEEDS, [""] * 3)
    )


def test_the_feature_decides_the_image(tiny, features):
    here = decode_features(tiny, features[:1], SEEDS[:1])
    assert not torch.equal(here, decode_features(tiny, 3 * features[1:2], SEEDS[:1]))
    assert not torch.equal(here, decode_features(tiny, features[:1], SEEDS[:1], noise_level=900))


def test_a_image_does_not_depend_on_its_batch(tiny, features):
    together = decode_features(tiny, features, SEEDS)
    alone = decode_features(tiny, features, SEEDS, batch=1)
    difference = (together.int() - alone.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.01


def test_what_was_done_to_the_features_is_undone(tiny, features):
    mean, scale = features.mean(0), features.std()
    standardised = (features - mean) / scale
    undone = decode_features(tiny, standardised, SEEDS, inverse=lambda x: x * scale + mean)
    difference = (undone.int() - decode_features(tiny, features, SEEDS).int()).abs()
    assert difference.max() <= 1
    assert not torch.equal(undone, decode_features(tiny, standardised, SEEDS))


def test_what_cannot_be_decoded_is_refused(tiny, features):
    with pytest.raises(UserError, match=rf"shape \(3, 7\) cannot be decoded: .*gives \(n, {WIDTH}\)"):
        decode_features(tiny, features[:, :7], SEEDS)
    with pytest.raises(UserError, match="3 features and 2 seeds"):
        decode_features(tiny, features, SEEDS[:2])
    with pytest.raises(UserError, match="Feature 1 is not finite"):
        decode_features(tiny, features * torch.tensor([[1.0], [torch.nan], [1.0]]), SEEDS)
    with pytest.raises(UserError, match="2 prompts"):
        decode_features(tiny, features, SEEDS, ["apple", "car"])
    with pytest.raises(UserError, match="no features to decode"):
        decode_features(tiny, features[:0], [])


def test_no_images_and_unreadable_ones_are_refused(tiny, real):
    with pytest.raises(UserError, match="no images to embed"):
        image_features(tiny, real[:0])
    with pytest.raises(UserError, match="Image 0 is an array of float32"):
        image_features(tiny, real.float())

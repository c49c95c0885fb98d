import pytest
import torch
from tiny_unclip import WIDTH, save

from fgsynth.generate.generator import Generator
from fgsynth.generate.synthesise import Plan, synthesise
from fgsynth.latent.study.bridge import decode_features
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
    return tiny.clip_embedding(list(real))


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


def test_an_image_does_not_depend_on_its_batch(tiny, features):
    together = decode_features(tiny, features, SEEDS)
    alone = torch.cat([decode_features(tiny, features[i : i + 1], SEEDS[i : i + 1]) for i in range(3)])
    difference = (together.int() - alone.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.01


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

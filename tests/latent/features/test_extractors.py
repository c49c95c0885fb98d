import json
import shutil

import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf
from transformers import CLIPVisionModelWithProjection
from transformers.utils import logging

from fgsynth.latent.features import extractors
from fgsynth.latent.features.extractors import extractor
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator

NAME = "timm:test_vit"
MINI = "data/pretrained/mini-unclip"


def images(n=3, side=40):
    return list(torch.randint(0, 256, (n, side, side, 3), generator=generator("images")).to(torch.uint8))


@pytest.fixture(scope="module")
def random_vit():
    return extractor(NAME, pretrained=False, seed=1)


@pytest.fixture(scope="module")
def mini():
    return extractor(f"unclip:{MINI}")


@pytest.fixture
def saved(random_vit, tmp_path):
    """A local copy as timm saves it."""
    network = timm.create_model("test_vit", num_classes=0)
    network.load_state_dict(random_vit.network.state_dict())
    save_for_hf(network, str(tmp_path), safe_serialization=True)
    return tmp_path


def test_timm_gives_the_pooled_embedding_under_its_own_transform(random_vit):
    e = random_vit(images())
    assert e.shape == (3, random_vit.network.num_features)
    assert e.dtype == torch.float32
    asked = json.loads(random_vit.preprocessing)
    assert random_vit.prepare([_pil()]).shape[1:] == tuple(asked["input_size"])
    # Constant images survive any resizing; what is left is the normalisation.
    grey = random_vit.prepare([_pil(51)])[0, :, 0, 0]
    torch.testing.assert_close(grey, (0.2 - torch.tensor(asked["mean"])) / torch.tensor(asked["std"]))


def _pil(level=0):
    return Image.new("RGB", (200, 180), (level, level, level))


def test_random_weights_are_their_seeds_and_leave_the_global_generator_alone(random_vit):
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    same, other = (extractor(NAME, pretrained=False, seed=s) for s in (1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert same.digest == random_vit.digest != other.digest
    assert torch.equal(same(images()), random_vit(images()))


def test_the_network_is_frozen(random_vit):
    assert not random_vit.network.training
    assert not any(p.requires_grad for p in random_vit.network.parameters())
    assert not random_vit(images(1)).requires_grad


def test_a_local_folder_of_timm_gives_the_same_features(random_vit, saved):
    local = extractor(NAME, folder=saved)
    assert local.digest == random_vit.digest
    assert torch.equal(local(images()), random_vit(images()))


def test_the_unclips_clip_is_its_image_encoder_on_images_in_minus_one_to_one(mini, root):
    encoder = CLIPVisionModelWithProjection.from_pretrained(root / MINI / "image_encoder").eval()
    shown = images(5, 32)
    pixels = torch.stack(shown).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        expected = encoder(pixels).image_embeds
    torch.testing.assert_close(mini(shown), expected, atol=1e-5, rtol=1e-4)


@pytest.fixture
def clip_folder(root, tmp_path):
    for part in ("image_encoder", "feature_extractor"):
        shutil.copytree(root / MINI / part, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_clip_folder_and_an_unclip_of_the_same_weights_agree(mini, clip_folder):
    for clip in (extractor(f"clip:{clip_folder}"), extractor("clip:some/model", folder=clip_folder)):
        assert torch.equal(clip(images(2, 32)), mini(images(2, 32)))
        assert clip.digest == mini.digest
    random = extractor(f"clip:{clip_folder}", pretrained=False)
    assert random.digest != mini.digest
    assert random.digest == extractor(f"clip:{clip_folder}", pretrained=False).digest


def test_loading_from_a_folder_shows_no_bar_and_leaves_the_setting(capfd):
    before = logging.is_progress_bar_enabled()
    extractor(f"unclip:{MINI}")
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled() == before


def test_pickled_weights_are_not_read(clip_folder, saved):
    tensors = clip_folder / "model.safetensors"
    torch.save({}, tensors.with_name("pytorch_model.bin"))
    tensors.unlink()
    with pytest.raises(UserError, match=r"Cannot load the weights of 'clip:.*safetensors"):
        extractor(f"clip:{clip_folder}")
    with pytest.raises(UserError, match=r"is no local copy of 'timm:test_vit': it has no model.safetensors"):
        extractor(NAME, folder=saved)


def test_damaged_weights_are_one_sentence(saved):
    (saved / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"Cannot load the weights of 'timm:test_vit'") as caught:
        extractor(NAME, folder=saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["test_vit", "timm:", "dino:small", ""])
def test_unknown_kinds_are_refused(name):
    with pytest.raises(UserError, match=f"Unknown extractor '{name}': give timm:<model>"):
        extractor(name)


def test_unknown_models_and_folders_are_named(tmp_path):
    with pytest.raises(UserError, match=r"timm has no model 'vit_gigantic'"):
        extractor("timm:vit_gigantic")
    with pytest.raises(UserError, match=r"There is no folder .*nowhere with the weights of 'timm:test_vit'"):
        extractor(NAME, folder=tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"Cannot load the weights of 'timm:test_vit.nosuchtag'"):
        extractor("timm:test_vit.nosuchtag", pretrained=False)


def test_a_folder_of_another_architecture_is_named(saved):
    with pytest.raises(UserError, match=r"holds timm's 'test_vit', not 'test_resnet'"):
        extractor("timm:test_resnet", folder=saved)
    (saved / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config.json names no architecture"):
        extractor(NAME, folder=saved)


@pytest.mark.parametrize("name", [NAME, "clip:some/model", "unclip:some/model"])
def test_weights_that_cannot_be_fetched_name_the_local_folder(monkeypatch, name):
    def offline(*_, **__):
        raise OSError("no route to host.\nsecond line")

    monkeypatch.setattr(extractors.timm, "create_model", offline)
    monkeypatch.setattr(extractors.CLIPImageProcessor, "from_pretrained", offline)
    with pytest.raises(UserError) as caught:
        extractor(name)
    assert str(caught.value) == (
        f"Cannot load the weights of '{name}' (no route to host): connect to the hub once, or set `folder` "
        "to a local copy with safetensors."
    )


def test_a_revision_is_asked_of_the_hub(monkeypatch):
    asked = []
    create = timm.create_model

    def fake(name, **kwargs):
        asked.append(name)
        return create("test_vit", num_classes=0)

    monkeypatch.setattr(extractors.timm, "create_model", fake)
    made = extractor("timm:vit_small_patch14_dinov2.lvd142m", revision="abc")
    assert asked == ["hf-hub:timm/vit_small_patch14_dinov2.lvd142m@abc"]
    assert made.revision == "abc"


def test_a_model_without_a_hub_has_no_revision(monkeypatch):
    monkeypatch.setattr(extractors.timm, "get_pretrained_cfg", lambda _: None)
    with pytest.raises(UserError, match=r"timm's 'test_vit' is not on the hub: leave `revision` out"):
        extractor(NAME, revision="abc")


def test_a_gpu_that_is_not_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="There is no GPU for 'timm:test_vit' on device 'cuda:0'"):
        extractor(NAME, pretrained=False, device="cuda:0")

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

MINI = "data/pretrained/mini-unclip"


def images(n=3, side=40):
    return list(torch.randint(0, 256, (n, side, side, 3), generator=generator("images")).to(torch.uint8))


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory):
    """A small network of timm with random weights, as timm saves it."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = timm.create_model("test_vit", num_classes=0)
    folder = tmp_path_factory.mktemp("vit")
    save_for_hf(network, str(folder), safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def vit(vit_folder):
    return extractor(f"timm:{vit_folder}")


@pytest.fixture(scope="module")
def mini():
    return extractor(f"unclip:{MINI}")


@pytest.fixture
def saved(vit_folder, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(vit_folder, tmp_path / "vit")


def test_timm_gives_the_pooled_embedding_under_its_own_transform(vit):
    e = vit(images())
    assert e.shape == (3, vit.network.num_features)
    assert e.dtype == torch.float32
    config = json.loads(vit.preprocessing)
    assert vit.prepare([_pil()]).shape[1:] == tuple(config["input_size"])
    # Constant images survive any resizing; what is left is the normalisation.
    grey = vit.prepare([_pil(51)])[0, :, 0, 0]
    torch.testing.assert_close(grey, (0.2 - torch.tensor(config["mean"])) / torch.tensor(config["std"]))


def _pil(level=0):
    return Image.new("RGB", (200, 180), (level, level, level))


def test_loading_leaves_the_global_generator_alone(vit, vit_folder):
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    again = extractor(f"timm:{vit_folder}")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert again.digest == vit.digest
    assert torch.equal(again(images()), vit(images()))


def test_the_network_is_frozen(vit):
    assert not vit.network.training
    assert not any(p.requires_grad for p in vit.network.parameters())
    assert not vit(images(1)).requires_grad


def test_a_folder_of_timm_gives_the_networks_own_features(vit, vit_folder, monkeypatch):
    network = timm.create_model(f"local-dir:{vit_folder}", pretrained=True, num_classes=0).eval()
    pixels = vit.prepare([_pil(51), _pil(204)])
    torch.testing.assert_close(vit.embed(pixels), network(pixels).detach())
    # A name loads the same network, from the hub.
    monkeypatch.setattr(extractors.timm, "create_model", lambda name, **_: {"test_vit": network}[name])
    named = extractor("timm:test_vit")
    assert named.digest == vit.digest
    assert torch.equal(named(images()), vit(images()))


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
    clip = extractor(f"clip:{clip_folder}")
    assert torch.equal(clip(images(2, 32)), mini(images(2, 32)))
    assert clip.digest == mini.digest


def test_loading_from_a_folder_shows_no_bar_and_leaves_the_setting(capfd):
    before = logging.is_progress_bar_enabled()
    extractor(f"unclip:{MINI}")
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled() == before


def test_pickled_weights_are_not_read(clip_folder, saved):
    tensors = clip_folder / "model.safetensors"
    torch.save({}, tensors.with_name("pytorch_model.bin"))
    tensors.unlink()
    with pytest.raises(UserError, match=r"The extractor 'clip:.*safetensors"):
        extractor(f"clip:{clip_folder}")
    (saved / "model.safetensors").rename(saved / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"is no model of timm: it has no model.safetensors"):
        extractor(f"timm:{saved}")


def test_damaged_folders_are_one_sentence(saved):
    spoil = {"model.safetensors": b"damaged", "config.json": b"{}"}
    for file, content in spoil.items():
        (saved / file).write_bytes(content)
        with pytest.raises(UserError, match=r"The extractor 'timm:.*vit' cannot be loaded") as caught:
            extractor(f"timm:{saved}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["test_vit", "timm:", "dino:small", ""])
def test_unknown_kinds_are_refused(name):
    with pytest.raises(UserError, match=f"Unknown extractor '{name}': give timm:<model or folder>"):
        extractor(name)


def test_unknown_models_are_named():
    with pytest.raises(UserError, match=r"timm has no model 'vit_gigantic', and there is no such folder"):
        extractor("timm:vit_gigantic")
    with pytest.raises(UserError, match=r"The extractor 'timm:test_vit.nosuchtag' cannot be loaded"):
        extractor("timm:test_vit.nosuchtag")


@pytest.mark.parametrize("name", ["timm:test_vit", "clip:some/model", "unclip:some/model"])
def test_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch, name):
    def offline(*_, **__):
        raise OSError("no route to host.\nsecond line")

    monkeypatch.setattr(extractors.timm, "create_model", offline)
    monkeypatch.setattr(extractors.CLIPImageProcessor, "from_pretrained", offline)
    with pytest.raises(UserError) as caught:
        extractor(name)
    hub = name.removeprefix("un").removeprefix("clip:").replace("timm:", "timm/")
    assert str(caught.value) == (
        f"The extractor '{name}' cannot be loaded (no route to host): run 'hf download {hub}' once, give a "
        "local folder with safetensors, or take lite:0."
    )

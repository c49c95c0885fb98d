import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny_unclip import save, text_config, words
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPVisionConfig

from fgsynth.data.images import from_uint8
from fgsynth.generate.generator import Generator
from fgsynth.models.clip import PROJECTION, Clip
from fgsynth.pretrain.files import FOLDER
from fgsynth.utils.errors import UserError


@pytest.fixture(scope="module")
def mini(root):
    return Clip(str(root / FOLDER)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random CLIP of 32 pixels, with means and deviations of its own."""
    where = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    tokens = words()
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=32,
        patch_size=8, projection_dim=32,
    )  # fmt: skip
    text = text_config(tokens).to_dict()
    CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision.to_dict(), projection_dim=32)
    ).save_pretrained(where)
    tokens.save_pretrained(where)
    size = {"shortest_edge": 32}
    CLIPImageProcessor(size=size, crop_size=32, image_mean=[0.4] * 3, image_std=[0.2] * 3).save_pretrained(
        where
    )
    return where


def images(n):
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 32, 32, 3), generator=g, dtype=torch.uint8)


@torch.no_grad()
def test_it_sees_what_the_unclip_sees(mini, root):
    unclip = Generator.load(root / FOLDER, 5)
    x = images(3)
    expected = unclip.clip_embedding(list(x))
    torch.testing.assert_close(mini.see(from_uint8(x)), expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_it_reads_by_the_encoder_of_the_unclip_and_its_projection(mini, root):
    sentences = ["apple", "a photo of apple in water"]
    ids = mini.ids(sentences)
    pooled = mini.text(ids).pooler_output
    torch.testing.assert_close(
        mini.read(ids), pooled @ load_file(root / FOLDER / PROJECTION)["weight"].float().T
    )
    assert mini.read(ids).shape == (2, mini.width)


@torch.no_grad()
def test_a_clip_in_a_folder_is_transformers_own(folder):
    ours, theirs = Clip(str(folder)).eval(), CLIPModel.from_pretrained(folder).eval()
    x = images(2)
    pixels = (x.permute(0, 3, 1, 2) / 255 - 0.4) / 0.2
    torch.testing.assert_close(ours.see(from_uint8(x)), theirs.get_image_features(pixels).pooler_output)
    ids = ours.ids(["apple", "banana in water"])
    torch.testing.assert_close(ours.read(ids), theirs.get_text_features(ids).pooler_output)


def test_what_does_not_fit_is_said(mini, root, tmp_path):
    with pytest.raises(UserError, match=r"of 32 x 32 pixels.*set the recipe's side to 32"):
        mini.see(torch.zeros(1, 3, 48, 48))
    with pytest.raises(UserError, match="tokens, CLIP takes 16: shorten it"):
        mini.ids(["apple " * 20])
    with pytest.raises(UserError, match=r"The CLIP '.*' cannot be loaded"):
        Clip(str(tmp_path))
    lacking = save(tmp_path / "unclip")
    with pytest.raises(UserError, match=f"has no {PROJECTION}, so its CLIP cannot compare"):
        Clip(str(lacking))
    damaged = shutil.copytree(root / FOLDER, tmp_path / "damaged")
    (damaged / "image_encoder" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"The CLIP .* cannot be loaded .*: mend this folder, or fetch"):
        Clip(str(damaged))

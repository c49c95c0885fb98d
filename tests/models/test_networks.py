import pytest
import torch
from torch import nn

from fgsynth.models.networks import Classifier, create
from fgsynth.utils.errors import UserError


def same(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_networks_of_timm_by_name():
    network = create("test_resnet", 3, seed=1).eval()
    logits, embedding = network(torch.zeros(2, 3, 32, 32))
    assert logits.shape == (2, 3)
    assert embedding.ndim == 2
    assert same(network, create("test_resnet", 3, seed=1))
    assert not same(network, create("test_resnet", 3, seed=2))
    with pytest.raises(UserError, match="Unknown network 'resnet-fifty'"):
        create("resnet-fifty", 3)
    with pytest.raises(UserError, match="'small' has no pretrained weights"):
        create("small", 3, pretrained=True)


def test_the_thin_network_differs_from_the_slim_one_in_stem_and_pooling_alone():
    thin, slim = create("thin", 3), create("slim", 3)
    assert thin.network.conv1.weight.shape == (16, 3, 3, 3)
    assert slim.network.conv1.weight.shape == (64, 3, 3, 3)
    assert isinstance(thin.network.maxpool, nn.MaxPool2d)
    assert isinstance(slim.network.maxpool, nn.Identity)
    x = torch.randn(2, 3, 32, 32)
    assert [part.shape for part in thin(x)] == [part.shape for part in slim(x)] == [(2, 3), (2, 64)]
    for name in ("layer2", "layer3", "layer4"):
        a, b = (dict(getattr(n.network, name).named_parameters()) for n in (thin, slim))
        assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}


def test_pretrained_networks_see_images_as_they_were_trained(monkeypatch):
    network = create("test_resnet", 3, pretrained=True, fetch=False)
    mean, std = (torch.tensor(network.network.pretrained_cfg[k])[:, None, None] for k in ("mean", "std"))
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(network.prepare(2 * x - 1), (x - mean) / std)
    assert isinstance(Classifier(nn.Identity()).prepare, nn.Identity)

    def offline(*_, **__):
        raise OSError

    monkeypatch.setattr("fgsynth.models.networks.timm.create_model", offline)
    with pytest.raises(UserError, match="pretrained weights of 'test_resnet'"):
        create("test_resnet", 3, pretrained=True)

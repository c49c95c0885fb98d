"""Classifiers: timm networks behind one contract, x -> (logits, embedding)."""

from copy import deepcopy
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from fgsynth.utils.errors import UserError


class Classifier(nn.Module):
    """A timm network that returns its logits (n, classes) and the embedding before them (n, k).

    prepare: what happens to images in [-1, 1] ahead of a network that was trained on others. heads: how
    many last layers it has.
    """

    heads: int = 1

    def __init__(self, network: nn.Module, prepare: nn.Module | None = None) -> None:
        super().__init__()
        self.network = network
        self.prepare = prepare or nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: images (n, 3, h, w) in [-1, 1], or as the network was trained on them."""
        # timm's networks share these three methods, which torch's type does not know.
        network: Any = self.network
        embedding = network.forward_head(network.forward_features(self.prepare(x)), pre_logits=True)
        return network.get_classifier()(embedding), embedding


def small(n_classes: int, seed: int = 0, width: int = 32, stem: int = 64, pool: bool = False) -> Classifier:
    """Timm's ResNet with one block at each of four sizes and a stem for 32 x 32 images.

    stem: channels of the first convolution. 64 are a ResNet's; they cost half of what a narrow one costs.
    pool: with a ResNet's max pooling behind it, so that blocks start at 8 x 8: half the cost, and trained
    for as long as accurate.
    """
    deep: dict[str, Any] = {} if stem == STEM else {"stem_type": "deep", "stem_width": stem // 2}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = timm.create_model(
            "resnet18",
            layers=(1, 1, 1, 1),
            channels=(width, 2 * width, 3 * width, 4 * width),
            num_classes=n_classes,
            in_chans=3,
            **deep,
        )
        network.conv1 = nn.Conv2d(3, stem, 3, stride=2, padding=1, bias=False)
        if not pool:
            network.maxpool = nn.Identity()
    return Classifier(network)


STEM = 64
OWN = {"small": (32, STEM, False), "slim": (16, STEM, False), "thin": (16, 16, True)}
"""Networks for 32 x 32 images by name: width, stem and pool of `small`."""


def create(
    name: str, n_classes: int, seed: int = 0, pretrained: bool = False, fetch: bool = True
) -> Classifier:
    """A network by name: one of OWN, or any of timm's with a new last layer, for images in [-1, 1].

    pretrained: with timm's weights, behind the normalisation they were trained with; without `fetch`
    with that normalisation alone, for weights that come from elsewhere. The seed decides all others.
    Raises UserError for an unknown name, and for weights that cannot be had.
    """
    if name in OWN:
        if pretrained:
            raise UserError(f"The network '{name}' has no pretrained weights: set pretrained to false.")
        return small(n_classes, seed, *OWN[name])
    if not timm.is_model(name):
        raise UserError(
            f"Unknown network '{name}': choose {' or '.join(OWN)}, or a name that timm.list_models() knows."
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            network: Any = timm.create_model(name, pretrained=pretrained and fetch, num_classes=n_classes)
        # What a failed download raises depends on the library that tried.
        except Exception as error:
            if not (pretrained and fetch):
                raise
            raise UserError(
                f"Cannot get the pretrained weights of '{name}' ({type(error).__name__}): connect once, "
                "or set pretrained to false."
            ) from error
    if not pretrained:
        return Classifier(network)
    mean, std = (torch.tensor(network.pretrained_cfg[key]) for key in ("mean", "std"))
    return Classifier(network, v2.Normalize((2 * mean - 1).tolist(), (2 * std).tolist()))


def last_layer(network: Classifier) -> nn.Linear:
    """The layer from embedding to logits. Raises UserError where it is not linear, or not the only one."""
    inner: Any = network.network
    if network.heads > 1:
        raise UserError(f"The network has {network.heads} last layers, not one: train it by another method.")
    layer = inner.get_classifier()
    if not isinstance(layer, nn.Linear):
        raise UserError(f"The last layer of {type(inner).__name__} is not linear: choose another network.")
    return layer


def with_last_layer(network: Classifier, layer: nn.Linear) -> Classifier:
    """A frozen copy with another last layer; the embedding stays what it is."""
    return set_last_layer(deepcopy(network), layer).eval().requires_grad_(False)


def set_last_layer(network: Classifier, layer: nn.Linear) -> Classifier:
    """The network itself, now with another last layer."""
    old = last_layer(network)
    (name,) = (key for key, module in network.named_modules() if module is old)
    network.set_submodule(name, layer.to(old.weight.device))
    return network

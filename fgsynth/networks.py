"""Classifiers: timm networks behind one contract, x -> (logits, embedding)."""

from typing import Any

import timm
import torch
from torch import Tensor, nn


class Classifier(nn.Module):
    """A timm network that returns its logits (n, classes) and the embedding before them (n, k)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: pictures (n, 3, h, w) as the network was trained on them."""
        # timm's networks share these three methods, which torch's type does not know.
        network: Any = self.network
        embedding = network.forward_head(network.forward_features(x), pre_logits=True)
        return network.get_classifier()(embedding), embedding


def small(n_classes: int, seed: int = 0, width: int = 32) -> Classifier:
    """Timm's ResNet with one block at each of four sizes and a stem for 32 x 32 pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = timm.create_model(
            "resnet18",
            layers=(1, 1, 1, 1),
            channels=(width, 2 * width, 3 * width, 4 * width),
            num_classes=n_classes,
            in_chans=3,
        )
        network.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
        network.maxpool = nn.Identity()
    return Classifier(network)

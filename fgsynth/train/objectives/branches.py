"""Several heads on one backbone: the last stage of a ResNet, and its last layer, once per branch."""

from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fgsynth.models.networks import Classifier, last_layer
from fgsynth.utils.errors import UserError


class Branches(Classifier):
    """A ResNet with `heads` last stages and last layers, which share all before them.

    In training logits are (n, heads, c); evaluated they are fused, their "mean" or their "sum", (n, c). The
    embedding is the mean of the branches', (n, k). All branches begin with the weights of the network's last
    stage; their last layers are drawn by the seed, but for the first. Raises UserError for other networks.
    """

    def __init__(self, network: Classifier, heads: int, seed: int, fuse: Literal["mean", "sum"]) -> None:
        super().__init__(network.network, network.prepare)
        inner: Any = self.network
        if not isinstance(getattr(inner, "layer4", None), nn.Module):
            raise UserError(
                f"{type(inner).__name__} has no last stage to have {heads} times: this method needs a ResNet."
            )
        layer, stage = last_layer(network), inner.layer4
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            others = [nn.Linear(layer.in_features, layer.out_features) for _ in range(heads - 1)]
        self.heads, self.fuse = heads, fuse
        self.stages = nn.ModuleList([stage, *(deepcopy(stage) for _ in others)])
        self.layers = nn.ModuleList(others)
        inner.layer4 = nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: images (n, 3, h, w), as `Classifier` takes them."""
        inner: Any = self.network
        shared = inner.forward_features(self.prepare(x))
        each = [inner.forward_head(stage(shared), pre_logits=True) for stage in self.stages]
        last = [inner.get_classifier(), *self.layers]
        logits = torch.stack([layer(e) for layer, e in zip(last, each, strict=True)], 1)
        embedding = torch.stack(each).mean(0)
        if self.training:
            return logits, embedding
        return (logits.mean(1) if self.fuse == "mean" else logits.sum(1)), embedding

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fgsynth.data.images import from_uint8
from fgsynth.data.sources import Images
from fgsynth.models.networks import Classifier, create, last_layer, with_last_layer
from fgsynth.train.second_stage.rescale import (
    TAUS,
    best_tau,
    label_aware_smoothing,
    lws,
    mislas,
    shifted_batch_norm,
    tau_normalised,
)
from fgsynth.train.train import outputs, predict
from fgsynth.utils.errors import UserError
from tests.train.second_stage.test_crt import MEANS, NETWORK, RECIPE, TAIL, TEST, images, recall


def uneven():
    """A network whose class vectors have the norms that a long tail gives them."""
    network = with_last_layer(NETWORK, nn.Linear(3, 3))
    layer = last_layer(network)
    layer.weight.copy_(torch.tensor([6.0, 3.0, 0.5])[:, None] * (3 * torch.eye(3) - 1))
    layer.bias.copy_(torch.tensor([0.2, 0.1, -0.1]))
    return network


def test_lws_only_scales_and_raises_the_rare_class_above_the_others():
    network, state = uneven(), torch.get_rng_state()
    new, old = last_layer(lws(network, TAIL, RECIPE, 0)), last_layer(network)
    assert torch.equal(torch.get_rng_state(), state)
    ratio = new.weight.diagonal() / old.weight.diagonal()
    torch.testing.assert_close(new.weight, ratio[:, None] * old.weight)
    torch.testing.assert_close(new.bias, ratio * old.bias)
    assert ratio[2] > ratio[1] > ratio[0]
    assert ratio[2] > 1 > ratio[0]
    assert not new.weight.requires_grad


@pytest.mark.parametrize("stage", [lws, mislas])
def test_the_seed_decides_the_stage(stage):
    first, again, other = (predict(stage(NETWORK, TAIL, RECIPE, seed), TEST) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_tau_normalisation_divides_by_the_norm_and_drops_the_bias():
    network = uneven()
    weight = last_layer(network).weight
    norms = last_layer(tau_normalised(network, 1.0)).weight.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(3))
    half = last_layer(tau_normalised(network, 0.5))
    torch.testing.assert_close(half.weight, weight / weight.norm(dim=1).sqrt()[:, None])
    assert (half.bias == 0).all()
    torch.testing.assert_close(last_layer(tau_normalised(network, 0.0)).weight, weight)


def test_tau_is_chosen_by_validation():
    network, val = uneven(), images((40, 40, 40), seed=5)
    tau = best_tau(network, val)
    right = {t: (predict(tau_normalised(network, t), val).argmax(1) == val.label).sum().item() for t in TAUS}
    assert right[tau] == max(right.values()) > right[0.0]
    assert tau == min(t for t in TAUS if right[t] == right[tau])


def test_label_aware_smoothing_by_hand():
    counts, logits = torch.tensor([101, 51, 1]), torch.tensor([[1.0, 0.0, -1.0]])
    log_p = logits.log_softmax(1)[0]
    middle = 0.1 + 0.3 * math.sin(math.pi / 4)
    for label, e in ((0, 0.4), (1, middle), (2, 0.1)):
        soft = torch.full((3,), e / 2)
        soft[label] = 1 - e
        found = label_aware_smoothing(logits, torch.tensor([label]), counts, 0.4, 0.1)
        torch.testing.assert_close(found, -(soft * log_p).sum())
    plain = label_aware_smoothing(logits, torch.tensor([1]), counts, 0.0, 0.0)
    torch.testing.assert_close(plain, F.cross_entropy(logits, torch.tensor([1])))
    even = label_aware_smoothing(logits, torch.tensor([1]), torch.tensor([5, 5, 5]), 0.4, 0.1)
    assert torch.isfinite(even)


class Normed(nn.Module):
    """A backbone of one batch norm over mean colours, with the three methods of timm's networks."""

    def __init__(self):
        super().__init__()
        self.norm, self.fc = nn.BatchNorm1d(3, affine=True), nn.Linear(3, 3)
        with torch.no_grad():
            self.fc.weight.copy_(2 * torch.eye(3))
            self.norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))

    def forward_features(self, x):
        return self.norm(x.mean((2, 3)))

    def forward_head(self, x, pre_logits):
        return x

    def get_classifier(self):
        return self.fc


def test_batch_norm_gets_the_statistics_of_balanced_classes_and_keeps_its_weights():
    network = Classifier(Normed()).eval()
    flat = Images(
        MEANS[TAIL.label].to(torch.uint8)[:, None, None].expand(-1, 4, 4, -1).contiguous(), TAIL.label
    )
    new = shifted_batch_norm(network, flat, RECIPE, 0)
    colours = from_uint8(MEANS.to(torch.uint8)[:, None, None]).mean((2, 3))
    torch.testing.assert_close(new.network.norm.running_mean, colours.mean(0), atol=0.02, rtol=0)
    deviation = colours.std(0, correction=0)
    torch.testing.assert_close(new.network.norm.running_var.sqrt(), deviation, atol=0.02, rtol=0)
    assert torch.equal(new.network.norm.weight, network.network.norm.weight)
    assert (network.network.norm.running_mean == 0).all()
    assert not new.training
    without = create("test_vit", 3).eval()
    assert shifted_batch_norm(without, flat, RECIPE, 0) is not without


def test_mislas_scales_and_shifts_the_layer_and_leaves_the_embedding():
    network = uneven()
    new = mislas(network, TAIL, RECIPE, 0)
    assert torch.equal(outputs(new, TEST)[1], outputs(network, TEST)[1])
    weight, old = last_layer(new).weight, last_layer(network).weight
    ratio = weight.diagonal() / old.diagonal()
    assert not torch.allclose(weight, ratio[:, None] * old, atol=1e-3)
    assert ratio[2] > ratio[0]
    assert recall(new) > recall(network)


def test_a_class_without_images_is_named_by_second_stages():
    for stage in (lws, mislas):
        with pytest.raises(UserError, match="Class 1 has no images"):
            stage(NETWORK, images((5, 0, 5)), RECIPE, 0)

from dataclasses import replace

import pytest
import torch
from torch import nn

from fgsynth.data.sources import Images
from fgsynth.models.networks import Classifier, create, last_layer, with_last_layer
from fgsynth.train.recipe import Recipe
from fgsynth.train.second_stage.crt import Pool, crt, meta_sampler
from fgsynth.train.train import outputs, predict
from fgsynth.utils.errors import UserError

RECIPE = Recipe(
    optimiser="sgd", rate=0.05, weight_decay=5e-4, epochs=1, updates_per_epoch=60, batch=32, warmup=0
)
MEANS = torch.tensor([[170.0, 110, 110], [110, 170, 110], [110, 110, 170]])


def images(counts, seed=0):
    """Images of one noisy colour each, whose classes overlap."""
    label = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    noise = 45 * torch.randn(len(label), 1, 1, 3, generator=torch.Generator().manual_seed(seed))
    x = (MEANS[label][:, None, None] + noise).clamp(0, 255)
    return Images(x.expand(-1, 4, 4, -1).to(torch.uint8).contiguous(), label)


class Mean(nn.Module):
    """A backbone whose embedding is the mean colour, with the three methods of timm's networks."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)
        with torch.no_grad():
            self.fc.weight.copy_(2 * torch.eye(3))
            # What a long tail does: the rare class is hardly ever said.
            self.fc.bias.copy_(torch.tensor([2.0, 1.0, -3.0]))

    def forward_features(self, x):
        return x.mean((2, 3))

    def forward_head(self, x, pre_logits):
        return x

    def get_classifier(self):
        return self.fc


NETWORK = Classifier(Mean()).eval().requires_grad_(False)
TAIL = images((200, 60, 6))
TEST = images((50, 50, 50), seed=1)


def recall(network):
    return (predict(network, TEST).argmax(1) == TEST.label)[100:].float().mean().item()


def test_crt_changes_only_the_last_layer_and_lifts_the_rare_class():
    before, state = NETWORK.network.fc.weight.clone(), torch.get_rng_state()
    new = crt(NETWORK, TAIL, RECIPE, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(NETWORK.network.fc.weight, before)
    assert not torch.equal(new.network.fc.weight, before)
    assert torch.equal(outputs(new, TEST)[1], outputs(NETWORK, TEST)[1])
    assert not any(p.requires_grad for p in new.parameters())
    assert recall(new) > recall(NETWORK) + 0.2


@pytest.mark.parametrize("stage", [crt, lambda n, r, c, s: meta_sampler(n, r, None, c, s)[0]])
def test_the_seed_decides_everything(stage):
    brief = replace(RECIPE, updates_per_epoch=3)
    first, again, other = (predict(stage(NETWORK, TAIL, brief, seed), TEST) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_meta_sampler_moves_toward_the_rare_class_and_lifts_it():
    new, rates = meta_sampler(NETWORK, TAIL, None, replace(RECIPE, updates_per_epoch=150, rate=0.2), 0)
    shares = torch.tensor([200, 60, 6]) / 266
    torch.testing.assert_close(rates.sum(), torch.tensor(1.0))
    assert rates[2] > 1.3 * shares[2]
    assert rates[0] < shares[0]
    assert recall(new) > recall(NETWORK) + 0.2
    assert torch.equal(outputs(new, TEST)[1], outputs(NETWORK, TEST)[1])


def test_rates_stay_where_classes_are_alike():
    # All classes look the same, so no rate is better than another.
    even = images((60, 60, 60))
    alike = Images(even.x[torch.randperm(180, generator=torch.Generator().manual_seed(0))], even.label)
    level = with_last_layer(NETWORK, nn.Linear(3, 3))
    rates = meta_sampler(level, alike, None, replace(RECIPE, updates_per_epoch=150), 0)[1]
    assert (rates - 1 / 3).abs().max() < 0.07


def test_the_meta_sampler_takes_synthetic_images_where_there_are_some(monkeypatch):
    made = images((0, 30, 194), seed=2)
    pools = []
    inner = Pool.take

    def take(self, classes, draw):
        pools.append(self)
        return inner(self, classes, draw)

    monkeypatch.setattr(Pool, "take", take)
    new, rates = meta_sampler(NETWORK, TAIL, made, replace(RECIPE, counts="real+synthetic"), 0)
    assert len({id(pool) for pool in pools}) == 2
    assert torch.isfinite(predict(new, TEST)).all()
    assert rates.shape == (3,)


def test_a_pool_draws_from_the_asked_class():
    pool = Pool.of(NETWORK, TAIL, RECIPE, 0)
    draw = torch.Generator().manual_seed(0)
    rare = outputs(NETWORK, Images(TAIL.x[-6:], TAIL.label[-6:]))[1]
    drawn = pool.take(torch.full((60,), 2), draw)
    assert {tuple(e.tolist()) for e in drawn} == {tuple(e.tolist()) for e in rare}
    assert torch.bincount(pool.balanced(300, draw)[1]).tolist() == pytest.approx([100, 100, 100], abs=30)


def test_a_class_without_real_images_is_named():
    hole = images((5, 0, 5))
    for stage in (crt, lambda n, r, c, s: meta_sampler(n, r, TAIL, c, s)):
        with pytest.raises(UserError, match="Class 1 has no images"):
            stage(NETWORK, hole, RECIPE, 0)


def test_the_last_layer_of_timm_networks_is_found_and_replaced():
    for name in ("small", "test_vit", "test_efficientnet"):
        network = create(name, 3).eval()
        layer = nn.Linear(last_layer(network).in_features, 5)
        new = with_last_layer(network, layer)
        assert last_layer(new) is layer
        assert last_layer(network).out_features == 3
    with pytest.raises(UserError, match="last layer of ResNet is not linear: choose another"):
        last_layer(create("test_resnet", 0))

import pytest
import torch
from torch import nn

from fgsynth.data.sources import Images
from fgsynth.models.networks import Classifier, last_layer
from fgsynth.train.second_stage import dfr
from fgsynth.train.second_stage.dfr import halves
from fgsynth.train.train import predict
from fgsynth.utils.errors import UserError


class Channels(nn.Module):
    """Embeds an image as the means of its red and its green."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        with torch.no_grad():
            # What the majority teaches: green, the context, stands for the class.
            self.fc.weight.copy_(torch.tensor([[0.0, -5.0], [0.0, 5.0]]))
            self.fc.bias.zero_()

    def forward_features(self, x):
        return x

    def forward_head(self, x, pre_logits=False):
        return x[:, :2].mean((2, 3))

    def get_classifier(self):
        return self.fc


NETWORK = Classifier(Channels())


def images(counts, seed=0):
    """counts: of classes in contexts, 00, 01, 10, 11. Red shows the class, green the context."""
    g = torch.Generator().manual_seed(seed)
    group = torch.arange(4).repeat_interleave(torch.tensor(counts))
    label, context = group // 2, group % 2
    red = 108 + 40 * label + 6 * torch.randn(len(group), generator=g)
    green = 58 + 140 * context + 6 * torch.randn(len(group), generator=g)
    colour = torch.stack([red, green, torch.zeros_like(red)], 1).clamp(0, 255).to(torch.uint8)
    return Images(colour[:, None, None].expand(-1, 4, 4, -1).contiguous(), label), group


def test_it_finds_the_class_where_the_first_layer_had_learned_the_context():
    held_out, group = images((30, 8, 8, 30))
    test, _ = images((25, 25, 25, 25), seed=1)
    before = (predict(NETWORK, test).argmax(1) == test.label).float().mean()
    assert before == 0.5
    refitted = dfr.dfr(NETWORK, held_out, group, 0)
    assert (predict(refitted, test).argmax(1) == test.label).float().mean() > 0.95
    # Green has lost its say.
    weight = last_layer(refitted).weight
    assert (weight[1] - weight[0])[0].abs() > 5 * (weight[1] - weight[0])[1].abs()
    assert not any(p.requires_grad for p in refitted.parameters())
    assert last_layer(NETWORK).weight[1, 1] == 5


def test_the_seed_decides(monkeypatch):
    monkeypatch.setattr(dfr, "STRENGTHS", (0.1,))
    held_out, group = images((30, 8, 8, 30))
    first, again, other = (last_layer(dfr.dfr(NETWORK, held_out, group, seed)).weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_halves_share_every_group():
    group = torch.tensor([0] * 5 + [2] * 4 + [1])
    first, second = halves(group, torch.Generator().manual_seed(0))
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(10))
    assert group[first].bincount().tolist() == [3, 1, 2]
    assert group[second].bincount(minlength=3).tolist() == [2, 0, 2]


def test_what_cannot_be_refitted_is_said():
    held_out, group = images((4, 4, 4, 4))
    for wrong, told in ((group[1:], r"int64 \(15,\)"), (group - 1, "int64"), (group / 2, "float32")):
        with pytest.raises(UserError, match=f"The groups are torch.{told}.* for 16 held-out images"):
            dfr.dfr(NETWORK, held_out, wrong, 0)
    lonely, group = images((4, 4, 0, 0))
    with pytest.raises(UserError, match="Class 1 has no held-out image"):
        dfr.dfr(NETWORK, lonely, group, 0)

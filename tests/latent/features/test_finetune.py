import pytest
import torch
from torch import nn

from fgsynth.latent.features.finetune import FineTuned, best_by_validation, fine_tune
from fgsynth.utils.errors import UserError


@pytest.fixture
def task():
    """Bright and dark images, and a random layer."""
    g = torch.Generator().manual_seed(0)
    label = torch.arange(80) % 2
    pixels = torch.rand(80, 3, 8, 8, generator=g) * 0.4 + 0.5 * label[:, None, None, None] - 0.45
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh())
    probe = torch.zeros(16, 2), torch.zeros(2)
    return backbone, pixels, label, torch.tensor([40, 40]), probe


def test_it_learns_all_weights_and_leaves_the_backbone_as_it_was(task):
    backbone, pixels, label, counts, probe = task
    before = [p.clone() for p in backbone.parameters()]
    tuned = fine_tune(backbone, pixels, label, counts, probe=probe, rate=1e-2, epochs=30, seed=0)
    assert (tuned.predict(pixels) == label).float().mean() > 0.95
    assert tuned.trainable == 192 * 16 + 16 + 16 * 2 + 2
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.parameters(), strict=True))
    moved = [not torch.equal(a, b) for a, b in zip(before, tuned.network[0].parameters(), strict=True)]
    assert all(moved)


def test_the_same_seed_gives_the_same_weights(task):
    one, other = (fine_tune(*task[:4], probe=task[4], rate=1e-2, epochs=2, seed=3) for _ in range(2))
    for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_it_starts_at_a_probe(task):
    backbone, pixels, label, counts, _ = task
    weight, bias = torch.randn(16, 2, generator=torch.Generator().manual_seed(1)), torch.tensor([0.5, -0.5])
    tuned = fine_tune(backbone, pixels, label, counts, probe=(weight, bias), rate=1e-9, epochs=1, seed=0)
    torch.testing.assert_close(tuned.network(pixels), backbone(pixels) @ weight + bias, atol=1e-4, rtol=0)


def test_the_rate_is_chosen_by_validation(task):
    pixels, label = task[1:3]

    class Right(nn.Module):
        """Right on as many of the images as its rate says."""

        def __init__(self, rate):
            super().__init__()
            self.rate = rate

        def forward(self, x):
            shown = torch.where(torch.arange(len(x)) < self.rate, label, 1 - label)
            return nn.functional.one_hot(shown).float()

    chosen = best_by_validation([10, 70, 30], lambda r: FineTuned(Right(r), 0.0, 0, r), pixels, label)
    assert chosen.rate == 70


def test_a_loss_that_is_not_finite_is_one_sentence(task):
    backbone, pixels, label, counts, probe = task
    pixels[3] = torch.nan
    with pytest.raises(UserError, match=r"Fine-tuning: the loss is nan at update [01]: lower the rate"):
        fine_tune(backbone, pixels, label, counts, probe=probe, rate=1e-2, epochs=1, seed=0)

import pytest
import torch
from baseline_tools import BATCH, COUNTS, LABEL, LOGITS, X, moment, says

from fgsynth.models.networks import create
from fgsynth.train.losses import balanced_softmax
from fgsynth.train.objective import Batch, Drawing
from fgsynth.train.objectives.branches import CMO, Branches, divergence
from fgsynth.train.objectives.mixing import mixed_cross_entropy

OTHER = Batch(X + 100, LABEL.flip(0))
PAIR = BATCH._replace(other=OTHER)
ALWAYS = CMO(probability=1.0, experts=1)


def test_a_foreground_is_pasted_and_takes_its_share_of_the_label():
    network = says(LOGITS)
    loss = ALWAYS.loss(network, PAIR, moment(50, key=2))
    new = (network.seen > 50).float()
    share = 1 - new.mean().item()
    assert 0 < share < 1
    torch.testing.assert_close(network.seen, torch.where(new > 0, X + 100, X))
    expected = mixed_cross_entropy(LOGITS + COUNTS.log(), LABEL, LABEL.flip(0), share).mean()
    torch.testing.assert_close(loss, expected)


def test_half_of_the_batches_are_mixed_and_none_at_either_end():
    network, mixed = says(LOGITS), []
    for key in range(200):
        CMO(experts=1).loss(network, PAIR, moment(50, key=key))
        mixed.append(not torch.equal(network.seen, X))
    assert sum(mixed) == pytest.approx(100, abs=30)
    for update in (0, 2, 97, 99):
        loss = ALWAYS.loss(network, PAIR, moment(update))
        assert torch.equal(network.seen, X)
        torch.testing.assert_close(loss, balanced_softmax(LOGITS, LABEL, COUNTS))


def test_foregrounds_are_drawn_by_inverse_frequency():
    assert ALWAYS.second() == Drawing("inverse")


def test_experts_share_the_loss_and_gain_by_being_different():
    alike = torch.stack([LOGITS] * 3, 1)
    apart = torch.stack([LOGITS, LOGITS + torch.tensor([0.5, 0.0, -0.5]), LOGITS.flip(0)], 1)
    at = moment(0)
    one = CMO().loss(says(alike), PAIR, at)
    torch.testing.assert_close(one, balanced_softmax(LOGITS, LABEL, COUNTS))
    plain, diverse = (CMO(diversity=d).loss(says(apart), PAIR, at) for d in (0.0, 0.2))
    torch.testing.assert_close(plain - diverse, 0.2 * divergence(apart))
    assert divergence(apart) > 0.01
    assert divergence(alike).abs() < 1e-6


def test_divergence_by_hand():
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1]])
    logits = torch.stack([p.log(), q.log()], 1).requires_grad_()
    found = divergence(logits)
    # Roots of 0.5 * 0.9 and 0.5 * 0.1, normalised: the softmax of the mean logits.
    both = torch.tensor([[0.75, 0.25]])
    expected = sum((both * (both / one).log()).sum() for one in (p, q)) / 2
    torch.testing.assert_close(found, expected)
    # What they say together stands still: gradients are those of a cross entropy with it.
    (slope,) = torch.autograd.grad(found, logits)
    torch.testing.assert_close(slope, torch.stack([p - both, q - both], 1) / 2)


def test_three_experts_are_three_branches_and_one_is_the_network():
    network = create("slim", 3)
    assert CMO(experts=1).wrap(network, 3, 0) is network
    wrapped = CMO().wrap(network, 3, 0)
    assert isinstance(wrapped, Branches)
    assert wrapped.heads == 3

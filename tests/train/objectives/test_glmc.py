import pytest
import torch
from baseline_tools import BATCH, COUNTS, LABEL, LOGITS, X, moment, says

from fgsynth.models.networks import create
from fgsynth.train.objectives.mixing import GLMC, dissimilarity, mixed_cross_entropy, partners, ratio

TWICE = torch.cat([LOGITS, LOGITS.flip(0)])
HEADS = torch.randn(8, 2, 6, generator=torch.Generator().manual_seed(1))


def shares(at, seen):
    """Share and partners, and what is left of an image after pasting."""
    share, other = ratio(0.5, at.draw("share")), partners(4, at.draw("partners"), torch.device("cpu"))
    kept = (seen[4:] == X).float()[other != torch.arange(4)]
    return share, other, kept.mean().item()


def test_the_rebalanced_loss_takes_over_with_the_square_of_time():
    method, network, found = GLMC(consistency=0.0), says(TWICE, HEADS), {}
    for update in (0, 50, 100):
        at = moment(update, key=4)
        found[update] = method.loss(network, BATCH, at).item()
    share, other, left = shares(at, network.seen)
    assert 0 < left < 1
    parts = [
        mixed_cross_entropy(logits, LABEL, LABEL[other], s)
        for logits, s in ((TWICE[:4], share), (TWICE[4:], left))
    ]
    plain = torch.cat(parts).mean().item()
    assert found[0] == pytest.approx(plain, rel=1e-5)
    prior = [
        mixed_cross_entropy(logits + COUNTS.log(), LABEL, LABEL[other], s)
        for logits, s in ((TWICE[:4], share), (TWICE[4:], left))
    ]
    last = torch.cat(prior).mean().item()
    assert found[100] == pytest.approx(last, rel=1e-5)
    assert found[50] == pytest.approx(0.75 * plain + 0.25 * last, rel=1e-5)


def test_both_views_are_shown_at_once_the_global_one_first():
    network, at = says(TWICE, HEADS), moment(key=4)
    GLMC().loss(network, BATCH, at)
    share, other, _ = shares(at, network.seen)
    torch.testing.assert_close(network.seen[:4], share * X + (1 - share) * X[other])
    assert ((network.seen[4:] == X) | (network.seen[4:] == X[other])).all()


def test_views_are_pulled_together_through_the_prediction_alone():
    a, b = (HEADS[i::2].clone().requires_grad_() for i in (0, 1))
    dissimilarity(a, b).backward()
    assert (a.grad[:, 0] == 0).all()
    assert (a.grad[:, 1] != 0).any()
    assert (b.grad[:, 0] == 0).all()
    same = torch.ones(3, 2, 5)
    assert dissimilarity(same, same).item() == pytest.approx(-1)
    at = moment(key=4)
    with_, without = (GLMC(consistency=c).loss(says(TWICE, HEADS), BATCH, at) for c in (4.0, 0.0))
    torch.testing.assert_close(with_ - without, 4 * dissimilarity(HEADS[:4], HEADS[4:]))


def test_its_network_is_the_plain_one_when_evaluated():
    x = torch.randn(4, 3, 32, 32)
    plain, network = create("slim", 3).eval(), GLMC().wrap(create("slim", 3), 3, 0)
    logits, heads = network.train()(x)
    assert logits.shape == (4, 3)
    assert heads.shape == (4, 2, plain(x)[1].shape[1])
    fresh = GLMC().wrap(create("slim", 3), 3, 0).eval()
    for a, b in zip(fresh(x), plain(x), strict=True):
        torch.testing.assert_close(a, b)

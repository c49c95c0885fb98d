import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal

from fgsynth.guidance.criteria import (
    CRITERIA,
    Hardness,
    bald,
    combined,
    entropy,
    loss,
)
from fgsynth.utils.errors import UserError

LABEL = torch.tensor([0, 1, 2, 0])
TWO_CLASSES = torch.tensor([0, 1, 0, 1])


def gradient(criterion, logits, embedding, label):
    logits, embedding = logits.clone().requires_grad_(True), embedding.clone().requires_grad_(True)
    criterion(logits, embedding, label).sum().backward()
    return logits.grad, embedding.grad


@given(st.integers(0, 1000))
def test_entropy_gradient_in_closed_form(seed):
    logits = 3 * torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    p = logits.softmax(-1)
    h = -(p * p.log()).sum(-1, keepdim=True)
    torch.testing.assert_close(gradient(entropy, logits, logits, LABEL)[0], -p * (p.log() + h))
    assert ((entropy(logits, logits, LABEL) >= 0) & (entropy(logits, logits, LABEL) <= math.log(3))).all()


def test_entropy_of_certainty_and_of_ignorance():
    logits = torch.tensor([[200.0, -200.0, -200.0], [1.0, 1.0, 1.0]])
    torch.testing.assert_close(entropy(logits, logits, LABEL[:2]), torch.tensor([0.0, math.log(3)]))
    assert torch.isfinite(gradient(entropy, logits, logits, LABEL[:2])[0]).all()


def test_loss_gradient_in_closed_form():
    logits = torch.randn(4, 3, dtype=torch.double)
    expected = logits.softmax(-1) - torch.nn.functional.one_hot(LABEL, 3)
    torch.testing.assert_close(gradient(loss, logits, logits, LABEL)[0], expected)


def real_embeddings():
    g = torch.Generator().manual_seed(0)
    e = torch.randn(60, 4, generator=g, dtype=torch.double) @ torch.randn(
        4, 4, generator=g, dtype=torch.double
    )
    return e, torch.arange(60) % 3


def test_hardness_is_the_gaussian_negative_log_likelihood():
    e, y = real_embeddings()
    hardness = Hardness.fit(e, y, 3, shrinkage="none")
    for c in range(3):
        mine = e[y == c]
        gaussian = MultivariateNormal(mine.mean(0), torch.cov(mine.T, correction=0))
        x = torch.randn(7, 4, dtype=torch.double)
        label = torch.full((7,), c)
        torch.testing.assert_close(hardness(x, x, label), -gaussian.log_prob(x))
        expected = (x - mine.mean(0)) @ torch.linalg.inv(torch.cov(mine.T, correction=0))
        torch.testing.assert_close(gradient(hardness, x, x, label)[1], expected)


@pytest.mark.parametrize(("shrinkage", "n"), [("oas", 2), ("ledoit_wolf", 3)])
def test_shrinkage_makes_a_class_of_few_usable(shrinkage, n):
    e, y = torch.randn(n, 10, generator=torch.Generator().manual_seed(0)), torch.zeros(n).long()
    hardness = Hardness.fit(e, y, 1, shrinkage=shrinkage)
    assert torch.isfinite(hardness(e, e, y)).all()
    with pytest.raises(UserError, match="singular"):
        Hardness.fit(e, y, 1, shrinkage="none")


def test_hardness_names_the_class_it_cannot_fit():
    e, y = real_embeddings()
    with pytest.raises(UserError, match="Class 3 has 0 real embeddings"):
        Hardness.fit(e, y, 4)
    with pytest.raises(UserError, match=r"covariance of class 0 .* singular"):
        Hardness.fit(e[y == 0][:3], torch.zeros(3, dtype=torch.long), 1, shrinkage="none")
    with pytest.raises(UserError, match="'shrinkage' is 'lw': input should be 'oas'"):
        Hardness.fit(e, y, 3, shrinkage="lw")


def test_combined_draws_one_criterion_per_sample_by_its_own_seed():
    e, y = real_embeddings()
    criteria = [*CRITERIA.values(), Hardness.fit(e, y, 3)]
    n = 3000
    logits, x, label = torch.randn(n, 3).double(), torch.randn(n, 4).double(), torch.arange(n) % 3
    seeds = list(range(n))
    values = combined(criteria, seeds)(logits, x, label)
    each = torch.stack([c(logits, x, label) for c in criteria])
    drawn = (each == values).double()
    assert (drawn.sum(0) == 1).all()
    # Binomial(3000, 1/3) has a standard deviation of 0.9 %.
    assert (drawn.mean(1) - 1 / 3).abs().max() < 0.04
    some = [5, 17, 2000]
    alone = combined(criteria, some)(logits[some], x[some], label[some])
    torch.testing.assert_close(alone, values[some])
    with pytest.raises(UserError, match="drawn for 3 samples, not 4"):
        combined(criteria, some)(logits[:4], x[:4], label[:4])


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def committee_of(members):
    """Logits of a committee, and its members' side by side, from (n, m, c)."""
    return members.log_softmax(-1).logsumexp(1) - math.log(members.shape[1]), members.flatten(1)


def test_ignorance_is_the_most_useful_and_certainty_the_least():
    logits = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
    value = entropy(logits, logits, TWO_CLASSES[:3])
    assert (value.diff() < 0).all()


def test_bald_is_nothing_where_members_agree_and_all_where_certain_ones_do_not():
    same = drawn(4, 1, 3).expand(4, 5, 3)
    torch.testing.assert_close(bald(*committee_of(same), TWO_CLASSES), torch.zeros(4, dtype=torch.double))
    certain = 100 * torch.eye(2, dtype=torch.double)[None]
    assert bald(*committee_of(certain), TWO_CLASSES[:1]).item() == pytest.approx(math.log(2))
    ignorant = torch.zeros(1, 2, 2, dtype=torch.double)
    assert bald(*committee_of(ignorant), TWO_CLASSES[:1]).item() == pytest.approx(0)


def test_bald_of_one_network_is_refused():
    with pytest.raises(UserError, match="two heads or more"):
        bald(drawn(4, 3), drawn(4, 3), TWO_CLASSES)


def test_balds_gradients_are_those_of_finite_differences():
    def value(x):
        return bald(*committee_of(x.reshape(4, 2, 3)), TWO_CLASSES)

    assert torch.autograd.gradcheck(value, drawn(4, 6, seed=2).requires_grad_(True))

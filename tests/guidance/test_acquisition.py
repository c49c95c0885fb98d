import math

import pytest
import torch

from fgsynth.guidance.acquisition import ACQUISITION, NearExemplars, bald, least_confidence, margin
from fgsynth.guidance.criteria import entropy
from fgsynth.utils.errors import UserError

LABEL = torch.tensor([0, 1, 0, 1])


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def committee_of(members):
    """Logits of a committee, and its members' side by side, from (n, m, c)."""
    return members.log_softmax(-1).logsumexp(1) - math.log(members.shape[1]), members.flatten(1)


def test_margin_and_least_confidence_of_a_hand_made_prediction():
    logits = torch.tensor([[0.7, 0.2, 0.1]]).log()
    assert margin(logits, logits, LABEL[:1]).item() == pytest.approx(0.2 - 0.7)
    assert least_confidence(logits, logits, LABEL[:1]).item() == pytest.approx(0.3)


@pytest.mark.parametrize("criterion", [margin, least_confidence, entropy])
def test_ignorance_is_the_most_useful_and_certainty_the_least(criterion):
    logits = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
    value = criterion(logits, logits, LABEL[:3])
    assert (value.diff() < 0).all()


def test_bald_is_nothing_where_members_agree_and_all_where_certain_ones_do_not():
    same = drawn(4, 1, 3).expand(4, 5, 3)
    torch.testing.assert_close(bald(*committee_of(same), LABEL), torch.zeros(4, dtype=torch.double))
    certain = 100 * torch.eye(2, dtype=torch.double)[None]
    assert bald(*committee_of(certain), LABEL[:1]).item() == pytest.approx(math.log(2))
    ignorant = torch.zeros(1, 2, 2, dtype=torch.double)
    assert bald(*committee_of(ignorant), LABEL[:1]).item() == pytest.approx(0)


def test_bald_of_one_network_is_refused():
    with pytest.raises(UserError, match="two networks or more"):
        bald(drawn(4, 3), drawn(4, 3), LABEL)


@pytest.mark.parametrize("name", [*ACQUISITION, "near exemplars"])
def test_gradients_are_those_of_finite_differences(name):
    real, label = drawn(6, 6, seed=1), torch.tensor([0, 0, 0, 1, 1, 1])
    criterion = ACQUISITION.get(name) or NearExemplars.fit(real, label, 2)

    def value(x):
        if name == "bald":
            return criterion(*committee_of(x.reshape(4, 2, 3)), LABEL)
        return criterion(x[:, :3], x, LABEL)

    assert torch.autograd.gradcheck(value, drawn(4, 6, seed=2).requires_grad_(True))


def test_hardness_far_from_the_real_images_costs_and_on_them_it_does_not():
    real = torch.tensor([[0.0, 0.0], [0.0, 1.0], [5.0, 0.0], [5.0, 1.0]])
    near = NearExemplars.fit(real, torch.tensor([0, 0, 1, 1]), 2, strength=2.0)
    logits = torch.zeros(3, 2)
    asked = torch.tensor([[0.0, 1.0], [0.0, 4.0], [5.0, 1.0]])
    value = near(logits, asked, torch.tensor([0, 0, 0]))
    free = math.log(2)
    # The unit is 1; another class's exemplar does not make an image near its own.
    torch.testing.assert_close(value, torch.tensor([free, free - 6, free - 10]), atol=1e-4, rtol=0)


def test_the_gradient_on_an_exemplar_is_finite():
    real = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    near = NearExemplars.fit(real, torch.zeros(2, dtype=torch.long), 1)
    x = real.clone().requires_grad_(True)
    near(torch.zeros(2, 2), x, torch.zeros(2, dtype=torch.long)).sum().backward()
    assert x.grad.isfinite().all()


def test_a_class_without_exemplars_and_images_all_alike_are_refused():
    with pytest.raises(UserError, match="Class 1 has no real embedding"):
        NearExemplars.fit(torch.zeros(2, 2), torch.zeros(2, dtype=torch.long), 2)
    with pytest.raises(UserError, match="two different real images"):
        NearExemplars.fit(torch.zeros(2, 2), torch.zeros(2, dtype=torch.long), 1)

import pytest
import torch
from baseline_tools import BATCH, COUNTS, LABEL, LOGITS, moment, says
from torch.nn import functional as F

from fgsynth.train.losses import balanced_softmax
from fgsynth.train.objectives.reweighting import (
    ERM,
    BalancedSoftmax,
    ClassBalanced,
    Focal,
    LogitAdjustment,
    class_weights,
)

P = LOGITS.softmax(1)[torch.arange(4), LABEL]


def test_erm_is_cross_entropy_and_knows_no_counts():
    torch.testing.assert_close(ERM().loss(says(LOGITS), BATCH, moment()), -P.log().mean())


@pytest.mark.parametrize("weight", [1.0, 0.4])
def test_balanced_softmax_is_the_loss_of_that_name(weight):
    found = BalancedSoftmax(weight).loss(says(LOGITS), BATCH, moment())
    assert torch.equal(found, balanced_softmax(LOGITS, LABEL, COUNTS, weight))


def test_logit_adjustment_shifts_by_tau_log_prior():
    pi = COUNTS / COUNTS.sum()
    by_hand = F.cross_entropy(LOGITS + 0.5 * pi.log(), LABEL)
    torch.testing.assert_close(LogitAdjustment(0.5).loss(says(LOGITS), BATCH, moment()), by_hand)
    torch.testing.assert_close(
        LogitAdjustment().loss(says(LOGITS), BATCH, moment()), balanced_softmax(LOGITS, LABEL, COUNTS)
    )


def test_class_weights_by_hand_sum_to_the_classes():
    # beta 1/2: E_1 = 1, E_2 = 3/2, so that weights are as 1 to 2/3.
    found = class_weights(torch.tensor([1.0, 2.0]), 0.5)
    torch.testing.assert_close(found, torch.tensor([1.2, 0.8]))
    # beta near 1 weights by 1 / n, beta 0 not at all.
    near = class_weights(COUNTS, 1 - 1e-9)
    torch.testing.assert_close(near, 3 / COUNTS / (1 / COUNTS).sum(), rtol=1e-4, atol=0)
    torch.testing.assert_close(class_weights(COUNTS, 0.0), torch.ones(3))


def test_the_class_balanced_loss_weighs_each_image_by_its_class():
    w = class_weights(COUNTS, 0.9)
    found = ClassBalanced(0.9).loss(says(LOGITS), BATCH, moment())
    torch.testing.assert_close(found, (-w[LABEL] * P.log()).mean())
    torch.testing.assert_close(ClassBalanced(0.0).loss(says(LOGITS), BATCH, moment()), -P.log().mean())


def test_focal_loss_by_hand_and_without_gamma_cross_entropy():
    found = Focal(2.0).loss(says(LOGITS), BATCH, moment())
    torch.testing.assert_close(found, (-((1 - P) ** 2) * P.log()).mean())
    torch.testing.assert_close(Focal(0.0).loss(says(LOGITS), BATCH, moment()), -P.log().mean())


def test_focal_loss_is_finite_where_an_image_is_certain():
    sure = torch.tensor([[200.0, 0.0, 0.0]]).requires_grad_()
    loss = Focal().loss(says(sure), BATCH._replace(label=LABEL[:1]), moment())
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(sure.grad).all()

import pytest
import torch
from torch.nn import functional as F

from fgsynth.train.losses import balanced_softmax


def test_balanced_softmax_on_hand_made_logits():
    logits, label = torch.zeros(1, 2), torch.tensor([1])
    # p = 1 / (9 + 1) for the class with one sample of ten.
    torch.testing.assert_close(
        balanced_softmax(logits, label, torch.tensor([9, 1])), torch.tensor(10.0).log()
    )


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_weight_mixes_with_cross_entropy(weight):
    logits, label, counts = torch.randn(6, 4), torch.arange(6) % 4, torch.tensor([100, 20, 5, 1])
    plain, balanced = F.cross_entropy(logits, label), balanced_softmax(logits, label, counts)
    torch.testing.assert_close(
        balanced_softmax(logits, label, counts, weight), weight * balanced + (1 - weight) * plain
    )


def test_equal_counts_change_nothing():
    logits, label = torch.randn(6, 4), torch.arange(6) % 4
    torch.testing.assert_close(
        balanced_softmax(logits, label, torch.full((4,), 7)), F.cross_entropy(logits, label)
    )

import numpy as np
import pytest
import torch
from baseline_tools import BATCH, COUNTS, LABEL, LOGITS, X, moment, says
from torch.nn import functional as F

from fgsynth.train.objectives.mixing import Mixup, Remix, mixed_cross_entropy, partners, pasted, ratio


def drawn(method, at):
    """The share and the partners of a moment."""
    other = partners(4, at.draw("partners"), torch.device("cpu"))
    return ratio(method.alpha, at.draw("share")), other


def test_shares_are_beta_distributed():
    shares = np.array([ratio(0.5, moment(key=key).draw("share")) for key in range(2000)])
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2a + 1)).
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / 8, abs=0.01)


def test_mixed_labels_are_soft_labels():
    first, second = LABEL, LABEL.flip(0)
    soft = 0.3 * F.one_hot(first, 3) + 0.7 * F.one_hot(second, 3)
    found = mixed_cross_entropy(LOGITS, first, second, 0.3)
    torch.testing.assert_close(found, F.cross_entropy(LOGITS, soft, reduction="none"))


@pytest.mark.parametrize("method", [Mixup(), Remix()])
def test_images_are_mixed_with_those_of_the_batch(method):
    at, network = moment(key=3), says(LOGITS)
    method.loss(network, BATCH, at)
    share, other = drawn(method, at)
    assert 0 < share < 1
    torch.testing.assert_close(network.seen, share * X + (1 - share) * X[other])


def test_mixup_mixes_labels_as_images():
    at = moment(key=5)
    share, other = drawn(Mixup(), at)
    expected = mixed_cross_entropy(LOGITS, LABEL, LABEL[other], share).mean()
    torch.testing.assert_close(Mixup().loss(says(LOGITS), BATCH, at), expected)


def test_remix_gives_the_label_to_the_rarer_class_of_an_unequal_pair():
    many, few, alike = COUNTS[:1], COUNTS[2:], COUNTS[:1] * 0.8
    method = Remix()
    # A frequent class with less than half of the image loses the label, on either side.
    assert method.label_share(0.4, many, few).item() == 0
    assert method.label_share(0.6, few, many).item() == 1
    # With half or more of the image it keeps its share; so do pairs that are nearly equal.
    assert method.label_share(0.6, many, few).item() == pytest.approx(0.6)
    assert method.label_share(0.4, few, many).item() == pytest.approx(0.4)
    for share in (0.1, 0.9):
        assert method.label_share(share, many, alike).item() == pytest.approx(share)
    assert method.label_share(0.4, 3 * few, few).item() == 0
    assert method.label_share(0.4, 2.9 * few, few).item() == pytest.approx(0.4)


def test_remix_of_equal_classes_is_mixup():
    at = moment(counts=torch.ones(3), key=1)
    remix, mixup = (method.loss(says(LOGITS), BATCH, at) for method in (Remix(alpha=0.2), Mixup(0.2)))
    torch.testing.assert_close(remix, mixup)


def test_a_box_of_the_other_image_is_pasted_and_counted():
    x, y = torch.zeros(2, 3, 16, 16), torch.ones(2, 3, 16, 16)
    lefts = []
    for seed in range(60):
        out, left = pasted(x, y, 0.75, torch.Generator().manual_seed(seed))
        assert left == pytest.approx(1 - out.mean().item(), abs=1e-6)
        # A box: as many rows as columns at most, all of it ones.
        inside = out[0, 0]
        rows, columns = (inside.amax(d).sum().item() for d in (1, 0))
        assert rows * columns == inside.sum().item()
        assert max(rows, columns) <= 8
        lefts.append(left)
    assert min(lefts) == 0.75
    assert max(lefts) > 0.75
    assert (x == 0).all()

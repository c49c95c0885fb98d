import torch
from baseline_tools import BATCH, COUNTS, LABEL, moment, says
from torch.nn import functional as F

from fgsynth.models.networks import create, last_layer
from fgsynth.train.objectives.reweighting import LDAM, class_weights, margins

COSINES = torch.tensor([[0.9, 0.1, -0.2], [0.3, 0.5, 0.1], [0.0, 0.2, 0.4], [0.6, 0.1, 0.2]])


def test_margins_go_with_the_fourth_root_and_the_rarest_has_the_largest():
    # 16 / 4 and 80 / 4: the fourth roots of 4 and 20.
    found = margins(COUNTS, 0.5)
    torch.testing.assert_close(found, 0.5 / torch.tensor([20.0, 4.0, 1.0]) ** 0.25)


def test_only_the_labels_cosine_is_lowered():
    method = LDAM(scale=10.0)
    lowered = COSINES.clone()
    lowered[torch.arange(4), LABEL] -= margins(COUNTS, 0.5)[LABEL]
    found = method.loss(says(10 * COSINES), BATCH, moment(79))
    torch.testing.assert_close(found, F.cross_entropy(10 * lowered, LABEL))


def test_classes_are_weighted_once_four_fifths_are_done():
    method, network = LDAM(scale=10.0, margin=0.0, beta=0.9), says(10 * COSINES)
    weighted = F.cross_entropy(10 * COSINES, LABEL, class_weights(COUNTS, 0.9))
    before, after = (method.loss(network, BATCH, moment(update)) for update in (79, 80))
    torch.testing.assert_close(after, weighted)
    torch.testing.assert_close(before, F.cross_entropy(10 * COSINES, LABEL))
    assert not torch.isclose(before, after)


def test_its_last_layer_says_scaled_cosines():
    state = torch.get_rng_state()
    network = LDAM().wrap(create("slim", 3), 3, 0).eval()
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.randn(5, 3, 32, 32)
    logits, embedding = network(x)
    by_hand = F.cosine_similarity(embedding[:, None], last_layer(network).weight[None], dim=2)
    torch.testing.assert_close(logits, 30 * by_hand)
    assert last_layer(network).bias is None
    again = LDAM().wrap(create("slim", 3), 3, 0)
    other = LDAM().wrap(create("slim", 3), 3, 1)
    assert torch.equal(last_layer(again).weight, last_layer(network).weight)
    assert not torch.equal(last_layer(other).weight, last_layer(network).weight)

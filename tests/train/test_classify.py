import pytest
import torch

from fgsynth.train.classify import embed, train_erm
from fgsynth.utils.errors import UserError

LABEL = torch.arange(3).repeat_interleave(8)
X = LABEL.float()[:, None, None, None].expand(-1, 3, 32, 32) - 1


def test_it_learns_what_can_be_learnt_and_is_frozen():
    network = train_erm(X, LABEL, 3, updates=30, seed=0, batch=12)
    logits, embedding = embed(network, X, batch=7)
    assert logits.shape == (24, 3)
    assert embedding.shape[0] == 24
    assert (logits.argmax(1) == LABEL).all()
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_the_seed_decides_everything():
    first, again, other = (embed(train_erm(X, LABEL, 3, 3, seed), X)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_a_class_without_images_is_named():
    with pytest.raises(UserError, match="Class 3 has no images to train on: add some or leave"):
        train_erm(X, LABEL, 4, updates=1, seed=0)

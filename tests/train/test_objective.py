from copy import deepcopy
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch.nn.functional import cross_entropy

from fgsynth.data.sources import Images
from fgsynth.train.loop import Fit
from fgsynth.train.objective import Batch, Objective, mapped
from fgsynth.train.ranks import Ranks
from fgsynth.train.recipe import Compute, Recipe
from fgsynth.train.train import train
from fgsynth.utils.errors import UserError

ALONE = Ranks(0, 1, torch.device("cpu"))
X = torch.randint(0, 256, (24, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABEL = torch.tensor([0] * 14 + [1] * 7 + [2] * 3)
REAL = Images(X, LABEL, torch.arange(24) % 2)


@dataclass(frozen=True)
class Counting(Objective):
    """Keeps how many images of each group it has seen, and remembers what it was told."""

    name: ClassVar[str] = "counting"
    grouped: ClassVar[bool] = True
    told: ClassVar[list] = []

    def loss(self, network, batch, at):
        at.state["seen"] += at.total(batch.group.bincount(minlength=len(at.state["seen"])))
        self.told.append((at, batch, torch.rand(1, generator=at.draw("any")).item()))
        return cross_entropy(network(batch.x)[0], batch.label)

    def state(self, counts, group_counts):
        return {"seen": torch.zeros_like(group_counts)}


RECIPE = Recipe(network="thin", epochs=2, updates_per_epoch=3, batch=8, augment=(), objective=Counting())


@pytest.fixture
def told():
    Counting.told.clear()
    return Counting.told


def test_a_loss_is_told_where_the_training_is_and_of_its_groups(told):
    train(REAL, None, 3, RECIPE, 0, device="cpu", compute=Compute(accumulate=2))
    moments = [at for at, _, _ in told]
    assert [at.update for at in moments] == [i for i in range(6) for _ in range(2)]
    assert [at.progress for at in moments[::4]] == pytest.approx([0, 1 / 3, 2 / 3])
    assert moments[0].counts.tolist() == [14, 7, 3]
    assert moments[0].group_counts.tolist() == (2 * LABEL + REAL.context).bincount().tolist()
    assert all(batch.x.shape == (4, 3, 32, 32) and batch.x.abs().max() <= 1 for _, batch, _ in told)
    # Two passes of 24 images.
    assert moments[-1].state["seen"].tolist() == (2 * moments[0].group_counts).tolist()


def test_draws_differ_between_micro_batches_and_repeat_with_the_seed(told):
    for seed in (0, 0, 1):
        train(REAL, None, 3, RECIPE, seed, device="cpu", compute=Compute(accumulate=2))
    draws = [draw for *_, draw in told]
    assert len(set(draws[:12])) == 12
    assert draws[:12] == draws[12:24]
    assert not set(draws[:12]) & set(draws[24:])
    at = told[0][0]
    assert torch.equal(torch.rand(2, generator=at.draw("a")), torch.rand(2, generator=at.draw("a")))
    assert not torch.equal(torch.rand(2, generator=at.draw("a")), torch.rand(2, generator=at.draw("b")))


def test_what_a_method_keeps_goes_on_from_a_checkpoint():
    groups = torch.tensor([4.0, 4, 4, 4, 4, 4])
    first, second = (Fit(RECIPE, torch.ones(3), 0, ALONE, 3, 3, Compute(), groups) for _ in range(2))
    batch = Batch(X[:8], LABEL[:8], 2 * LABEL[:8] + REAL.context[:8])
    first.network.train()
    first.update(batch)
    second.restore(deepcopy(first.state()))
    assert second.memory["seen"].tolist() == [4, 4, 0, 0, 0, 0]
    first.update(batch)
    assert first.memory["seen"].tolist() == [8, 8, 0, 0, 0, 0]
    assert second.memory["seen"].tolist() == [4, 4, 0, 0, 0, 0]


def test_groups_are_asked_for_by_the_methods_that_need_them():
    unknown = Images(X, LABEL)
    with pytest.raises(UserError, match="The real images have no contexts"):
        train(unknown, None, 3, RECIPE, 0, device="cpu")
    train(unknown, None, 3, replace(RECIPE, objective=None, epochs=1), 0, device="cpu")


def test_a_function_of_every_tensor_of_a_batch():
    batch = Batch(X[:4], LABEL[:4], None, Batch(X[4:8], LABEL[4:8], LABEL[4:8]))
    half = mapped(batch, lambda t: t[1::2])
    assert half.group is None
    assert torch.equal(half.other.group, LABEL[5:8:2])
    assert torch.equal(half.x, X[1:4:2])

from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar

import pytest
import torch

from fgsynth.data.sources import Images
from fgsynth.train.batches import keys, training_batches
from fgsynth.train.objective import PASSES, Drawing, Objective
from fgsynth.train.recipe import Recipe
from fgsynth.train.sampling import Rows, drawn, shares, steps, subsampled
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator

ORDER = torch.randperm(100, generator=generator("order"))
LABEL = torch.tensor([0] * 60 + [1] * 30 + [3] * 10)[ORDER]
# A fifth of every class is in the second context.
GROUP = 2 * LABEL + (ORDER % 5 == 0)
ROWS = Rows(LABEL, GROUP)


def frequencies(drawing, key, n=200):
    rows = torch.cat(list(islice(drawn(ROWS, drawing, 50, generator("draw")), n)))
    return key[rows].bincount(minlength=int(key.max()) + 1) / len(rows), rows


@pytest.mark.parametrize("kind", ["balanced", "inverse"])
def test_classes_are_drawn_as_often_as_they_are_said_to_be(kind):
    drawing = Drawing(kind)
    expected = shares(drawing, LABEL.bincount())
    found, rows = frequencies(drawing, LABEL)
    torch.testing.assert_close(found.double(), expected, atol=0.015, rtol=0)
    assert found[2] == 0
    # All images of a class have their turn.
    assert len(rows.unique()) == 100


def test_shares_by_hand():
    counts = torch.tensor([6, 0, 3, 1])
    assert shares(Drawing("balanced"), counts).tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])
    assert shares(Drawing("inverse"), counts).tolist() == pytest.approx([1 / 9, 0, 2 / 9, 6 / 9])


def test_groups_are_drawn_equally_often():
    found, _ = frequencies(Drawing("balanced", by="group"), GROUP)
    there = GROUP.bincount() > 0
    torch.testing.assert_close(found[there], torch.full_like(found[there], 1 / 6), atol=0.02, rtol=0)


def test_subsampled_groups_have_the_size_of_the_smallest_and_stay():
    chosen = subsampled(GROUP, generator("subsample"))
    counts = GROUP.bincount()
    smallest = int(counts[counts > 0].min())
    assert GROUP[chosen].bincount().tolist() == [smallest if n else 0 for n in counts.tolist()]
    assert not torch.equal(chosen, subsampled(GROUP, generator("another")))
    _, rows = frequencies(Drawing("subsampled", by="group"), GROUP, n=40)
    seen, times = rows.unique(return_counts=True)
    assert len(seen) == 6 * smallest
    assert times.max() - times.min() <= 1


def test_passes_show_every_image_equally_often():
    _, rows = frequencies(PASSES, LABEL, n=6)
    assert rows.bincount().tolist() == [3] * 100


@dataclass(frozen=True)
class Drawn(Objective):
    """A method of data alone."""

    name: ClassVar[str] = "drawn"
    grouped: ClassVar[bool] = True
    first: Drawing = PASSES
    other: Drawing | None = None

    def loss(self, network, batch, at):
        raise NotImplementedError

    def drawing(self):
        return self.first

    def second(self):
        return self.other


RARE = Drawing("inverse")
RECIPE = Recipe(batch=8, augment=(), objective=Drawn(other=RARE))
REAL = Images(
    torch.arange(100 * 12, dtype=torch.int32).reshape(100, 2, 2, 3).to(torch.uint8), LABEL, GROUP % 2
)


def test_a_second_stream_leaves_the_first_as_it_is():
    alone = list(steps(ROWS, None, replace(RECIPE, objective=Drawn()), 5, 0))
    both = list(steps(ROWS, None, RECIPE, 5, 0))
    assert all(torch.equal(a.real, b.real) and a.seed == b.seed for a, b in zip(alone, both, strict=True))
    assert all(a.other is None for a in alone)
    assert not any(torch.equal(step.real, step.other.real) or step.seed == step.other.seed for step in both)
    rest = list(steps(ROWS, None, RECIPE, 5, 0, start=3))
    assert len(rest) == 2
    assert torch.equal(rest[0].other.real, both[3].other.real)


def test_batches_have_their_groups_and_their_second_stream():
    batches = list(training_batches(REAL, REAL, RECIPE, 3, 0, 0, False))
    rows = [step.other for step in steps(*keys(REAL, REAL, True), RECIPE, 3, 0)]
    for batch, step in zip(batches, rows, strict=True):
        both = torch.cat([step.real, step.synthetic])
        assert torch.equal(batch.other.x, REAL.x[both])
        assert torch.equal(batch.other.group, GROUP[both])
        assert torch.equal(batch.group // 2, batch.label)
    first = next(training_batches(REAL, REAL, RECIPE, 3, 0, 0, False, rank=1, size=2))
    assert torch.equal(first.other.x, batches[0].other.x[1::2])
    assert torch.equal(first.other.group, batches[0].other.group[1::2])


def test_groups_that_are_not_known_are_a_mistake():
    unknown = Images(REAL.x, LABEL)
    with pytest.raises(UserError, match="The synthetic images have no contexts: this method needs them"):
        keys(REAL, unknown, True)
    with pytest.raises(UserError, match="no contexts, by which groups are drawn"):
        drawn(Rows(LABEL), Drawing("balanced", "group"), 4, generator("x"))
    with pytest.raises(UserError, match="3 contexts for 100 images"):
        Images(REAL.x, LABEL, GROUP[:3])
    assert keys(unknown, None, False) == (Rows(LABEL), None)

import pytest
import torch
from torch.nn.functional import cross_entropy

from fgsynth.train.objective import Batch, Moment
from fgsynth.train.objectives.grouped import IRM, LISA, RWG, SUBG, GroupDRO, fitting, invariance_penalty
from fgsynth.train.sampling import Rows, drawn
from fgsynth.utils.errors import UserError

CONTEXTS = 2
COUNTS = torch.tensor([6.0, 4.0])
GROUP_COUNTS = torch.tensor([5.0, 1.0, 4.0, 0.0])
"""Two classes in two contexts; the last group is empty."""
LABEL = torch.tensor([0, 0, 0, 1, 1])
CONTEXT = torch.tensor([0, 0, 1, 0, 0])
LOGITS = torch.tensor([[2.0, 0.0], [1.0, 0.0], [-1.0, 0.5], [0.0, 1.0], [0.3, 0.0]])


def batch(x=None, label=LABEL, context=CONTEXT):
    images = torch.zeros(len(label), 3, 2, 2) if x is None else x
    return Batch(images, label, label * CONTEXTS + context)


def moment(state=None, update=0, key=(0,)):
    return Moment(update, 10, COUNTS, GROUP_COUNTS, state if state is not None else {}, lambda t: t, key)


def says(logits):
    return lambda x: (logits, torch.zeros(len(x), 4))


def test_group_dro_moves_weight_to_the_group_of_the_largest_loss_as_its_formula_says():
    method = GroupDRO(step=0.5)
    state = method.state(COUNTS, GROUP_COUNTS)
    assert state["weights"].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    each = cross_entropy(LOGITS, LABEL, reduction="none")
    of_group = torch.stack([each[:2].mean(), each[2], each[3:].mean(), torch.tensor(0.0)])
    loss = method.loss(says(LOGITS), batch(), moment(state))
    expected = torch.tensor([1 / 3, 1 / 3, 1 / 3, 0]) * (0.5 * of_group).exp()
    expected = expected / expected.sum()
    torch.testing.assert_close(state["weights"], expected)
    assert state["weights"].argmax() == of_group.argmax() == 1
    torch.testing.assert_close(loss, (expected * of_group).sum())


def test_group_dro_of_two_processes_is_that_of_one():
    method, halves, told = GroupDRO(step=0.5), [], []
    whole = method.state(COUNTS, GROUP_COUNTS)
    loss = method.loss(says(LOGITS), batch(), moment(whole))
    for mine in (slice(0, 2), slice(2, None)):
        part = Batch(torch.zeros(len(LABEL[mine]), 3, 2, 2), LABEL[mine], batch().group[mine])
        method.loss(says(LOGITS[mine]), part, told_to(told, method))
        halves.append((mine, part))
    total = sum(told)
    parts = []
    for mine, part in halves:
        state = method.state(COUNTS, GROUP_COUNTS)
        at = Moment(0, 10, COUNTS, GROUP_COUNTS, state, lambda t: total, (0,))
        # As the trainer weights it: by its share of the batch.
        parts.append(method.loss(says(LOGITS[mine]), part, at) * len(part.label) / len(LABEL))
        torch.testing.assert_close(state["weights"], whole["weights"])
    torch.testing.assert_close(sum(parts), loss)


def told_to(told, method):
    """A moment that notes down what would be summed over processes."""

    def total(t):
        told.append(t)
        return t

    return Moment(0, 10, COUNTS, GROUP_COUNTS, method.state(COUNTS, GROUP_COUNTS), total, (0,))


def test_the_penalty_is_the_slope_of_the_risk_at_a_scale_of_one():
    twice = torch.cat([LOGITS[:2], LOGITS[:2]])[[0, 2, 1, 3]]
    label = torch.tensor([0, 0, 0, 0])
    # Both halves hold the same images, so the product is the square.
    scale = torch.ones((), requires_grad=True)
    (slope,) = torch.autograd.grad(cross_entropy(scale * twice, label), [scale])
    torch.testing.assert_close(invariance_penalty(twice, label), slope.detach() ** 2)
    assert invariance_penalty(LOGITS[:1], LABEL[:1]) == 0


def test_irm_is_the_mean_over_contexts_and_the_penalty_counts_later_on():
    method = IRM(weight=100.0, start=0.5)
    first = CONTEXT == 0
    risk = (cross_entropy(LOGITS[first], LABEL[first]) + cross_entropy(LOGITS[~first], LABEL[~first])) / 2
    penalty = invariance_penalty(LOGITS[first], LABEL[first]) / 2
    early = method.loss(says(LOGITS), batch(), moment(update=4))
    late = method.loss(says(LOGITS), batch(), moment(update=5))
    torch.testing.assert_close(early, risk + penalty)
    torch.testing.assert_close(late, (risk + 100 * penalty) / 100)


def test_partners_differ_as_asked_and_the_lonely_stay():
    same, differs = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([0, 1, 1, 0, 0, 0])
    draw = torch.Generator().manual_seed(0)
    found = torch.stack([fitting(same, differs, draw) for _ in range(50)])
    assert set(found[:, 0].tolist()) == {1, 2}
    assert (found[:, 1:3] == 0).all()
    assert (found[:, 3:] == torch.tensor([3, 4, 5])).all()


def test_lisa_mixes_within_a_class_or_within_a_context():
    label, context = torch.tensor([0, 0, 1, 1]).repeat(8), torch.tensor([0, 1, 0, 1]).repeat(8)
    # The first channel shows the class, the second the context.
    x = (
        torch.stack([label, context, torch.zeros_like(label)], 1)
        .float()[:, :, None, None]
        .expand(-1, -1, 2, 2)
    )
    ways = set()
    for key in range(12):
        seen = []

        def network(mixed, seen=seen):
            seen.append(mixed)
            return torch.zeros(len(mixed), 2), mixed

        loss = LISA().loss(network, batch(x, label, context), moment(key=(key,)))
        (mixed,) = seen
        changed = [bool(((mixed[:, c] - x[:, c]).abs() > 1e-4).any()) for c in (0, 1)]
        # Exactly one of class and context is mixed, of all images of the batch.
        assert sum(changed) == 1
        share = 1 - (mixed - x).abs().amax((1, 2, 3))
        torch.testing.assert_close(share, share[:1].expand(len(share)), rtol=0, atol=1e-5)
        torch.testing.assert_close(loss, torch.tensor(2.0).log())
        ways.add(changed[0])
    assert ways == {True, False}


def test_rwg_draws_groups_equally_often_and_subg_equally_few_of_each():
    group = torch.tensor([0] * 50 + [1] * 5 + [3] * 2)
    rows = Rows(group // CONTEXTS, group)
    draw = torch.Generator().manual_seed(0)
    often = group[torch.cat([next(drawn(rows, RWG().drawing(), 1000, draw)) for _ in range(3)])]
    share = often.bincount(minlength=4) / len(often)
    torch.testing.assert_close(share, torch.tensor([1 / 3, 1 / 3, 0, 1 / 3]), rtol=0, atol=0.04)
    few = next(drawn(rows, SUBG().drawing(), 6, draw))
    assert group[few].bincount(minlength=4).tolist() == [2, 2, 0, 2]
    assert len(set(few.tolist())) == 6


@pytest.mark.parametrize("method", [RWG(), SUBG()])
def test_their_loss_is_plain_cross_entropy(method):
    loss = method.loss(says(LOGITS), batch(), moment())
    torch.testing.assert_close(loss, cross_entropy(LOGITS, LABEL))


def test_images_without_contexts_are_refused():
    with pytest.raises(UserError, match="The batch has no groups"):
        IRM().loss(says(LOGITS), Batch(torch.zeros(5, 3, 2, 2), LABEL), moment())

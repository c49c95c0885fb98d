import torch
from baseline_tools import BATCH, LABEL, LOGITS, moment, says
from torch.nn import functional as F

from fgsynth.train.objectives.branches import ResLT

COUNTS = torch.tensor([300.0, 60.0, 5.0])
HEADS = torch.stack([LOGITS, LOGITS.flip(1), -LOGITS], 1)


def test_branches_learn_from_their_classes_alone():
    heads = HEADS.clone().requires_grad_()
    ResLT(alpha=1.0).loss(says(heads), BATCH, moment(counts=COUNTS)).backward()
    seen = heads.grad.abs().sum(2) > 0
    # Labels 0, 1, 2, 2: many, medium, few, few.
    assert seen[:, 0].tolist() == [True] * 4
    assert seen[:, 1].tolist() == [False, True, True, True]
    assert seen[:, 2].tolist() == [False, False, True, True]


def test_the_loss_by_hand():
    each = [F.cross_entropy(HEADS[i, b], LABEL[i]) for b, some in enumerate(((0, 1, 2, 3), (1, 2, 3), (2, 3)))
            for i in some]  # fmt: skip
    fused = F.cross_entropy(HEADS.sum(1), LABEL)
    found = ResLT(alpha=0.7).loss(says(HEADS), BATCH, moment(counts=COUNTS))
    torch.testing.assert_close(found, 0.3 * fused + 0.7 * torch.stack(each).mean())


def test_a_batch_of_frequent_classes_alone_is_no_mistake():
    batch = BATCH._replace(label=torch.zeros(4, dtype=torch.long))
    found = ResLT(alpha=1.0).loss(says(HEADS), batch, moment(counts=COUNTS))
    torch.testing.assert_close(found, F.cross_entropy(HEADS[:, 0], batch.label))

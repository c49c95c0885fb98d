import pytest
import torch

from fgsynth.latent.samplers.base import blocks, fill_counts, sample_classes
from fgsynth.latent.samplers.neighbours import Smote
from fgsynth.utils.errors import UserError

LABEL = torch.tensor([0] * 5 + [1] * 2 + [3])


@pytest.fixture
def sampler():
    features = torch.randn(len(LABEL), 3, generator=torch.Generator().manual_seed(0))
    return Smote().fit(features, LABEL)


def test_fill_counts_reach_the_largest_class_or_a_number():
    assert fill_counts(LABEL, 4).tolist() == [0, 3, 5, 4]
    assert fill_counts(LABEL, 4, to=3).tolist() == [0, 1, 3, 2]
    assert fill_counts(LABEL, 5, to=0).tolist() == [0] * 5


@pytest.mark.parametrize("label", [LABEL - 1, LABEL.float(), LABEL[None], LABEL + 1])
def test_fill_counts_refuse_what_are_no_class_numbers(label):
    with pytest.raises(UserError, match="class numbers from 0 to 3"):
        fill_counts(label, 4)


def test_fill_counts_refuse_a_negative_size():
    with pytest.raises(UserError, match="Classes filled to -1"):
        fill_counts(LABEL, 4, to=-1)


def test_blocks_are_full_but_the_last_and_together_are_everything(sampler):
    counts = torch.tensor([300, 0, 0, 270])
    parts = list(blocks(sampler, counts, 1, 256))
    assert [len(x) for x, _ in parts] == [256, 256, 58]
    features, label = sampler.sample_all(counts, 1)
    assert torch.equal(torch.cat([x for x, _ in parts]), features)
    assert torch.equal(torch.cat([y for _, y in parts]), label)
    assert label.tolist() == [0] * 300 + [3] * 270
    assert list(blocks(sampler, torch.zeros(4, dtype=torch.long), 1, 256)) == []


def test_blocks_need_a_row(sampler):
    with pytest.raises(UserError, match="Blocks of 0 rows"):
        next(blocks(sampler, torch.tensor([1]), 0, 0))


def test_nothing_asked_for_is_an_empty_table(sampler):
    features, label = sampler.sample_all(torch.zeros(4, dtype=torch.long), 0)
    assert features.shape == (0, 3)
    assert label.shape == (0,)


def test_a_class_without_features_is_named(sampler):
    with pytest.raises(UserError, match="Class 2 was not fitted: it has no real features"):
        sampler.sample_all(fill_counts(LABEL, 4), 0)


def test_as_many_starts_as_counts(sampler):
    with pytest.raises(UserError, match="1 starts for 2 counts"):
        sample_classes(sampler, 3, torch.tensor([1, 1]), 0, torch.tensor([0]))
    with pytest.raises(UserError, match="Class 0 has the count -2"):
        sampler.sample_all(torch.tensor([1]), 0, start=torch.tensor([-2]))

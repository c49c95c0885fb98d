import pytest
import torch

from fgsynth.latent.samplers.base import fill_counts
from fgsynth.latent.samplers.neighbours import Smote
from fgsynth.utils.errors import UserError

LABEL = torch.tensor([0] * 5 + [1] * 2 + [3])


@pytest.fixture
def sampler():
    features = torch.randn(len(LABEL), 3, generator=torch.Generator().manual_seed(0))
    return Smote().fit(features, LABEL)


def test_fill_counts_reach_the_largest_class():
    assert fill_counts(LABEL, 4).tolist() == [0, 3, 5, 4]


def test_no_rows_are_an_empty_table(sampler):
    features, label = sampler.sample_all(torch.zeros(4, dtype=torch.long), 0)
    assert features.shape == (0, 3)
    assert label.shape == (0,)


def test_a_class_without_features_is_named(sampler):
    with pytest.raises(UserError, match="Class 2 was not fitted: it has no real features"):
        sampler.sample_all(fill_counts(LABEL, 4), 0)


def test_counts_are_checked(sampler):
    with pytest.raises(UserError, match="Class 0 has the count -2"):
        sampler.sample_all(torch.tensor([-2]), 0)

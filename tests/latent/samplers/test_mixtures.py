import math

import pytest
import torch

from fgsynth.latent.samplers.mixtures import GaussianMixture
from fgsynth.utils.errors import UserError


@pytest.fixture
def data():
    """Class 0 has two distant parts of 3 to 1, class 1 one part, class 2 five rows, class 3 one."""
    g = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 0.1])
    parts = [
        torch.randn(300, 2, generator=g) * scale,
        torch.randn(100, 2, generator=g) * scale + torch.tensor([12.0, 0.0]),
        torch.randn(100, 2, generator=g) * scale - 5,
        torch.randn(5, 2, generator=g) * scale + 40,
        torch.full((1, 2), 60.0),
    ]
    return torch.cat(parts), torch.tensor([0] * 400 + [1] * 100 + [2] * 5 + [3])


def test_a_class_of_two_parts_is_drawn_as_such(data):
    drawn = GaussianMixture().fit(*data).sample(0, 20_000, 0)
    right = drawn[:, 0] > 6
    assert right.float().mean() == pytest.approx(0.25, abs=0.02)
    for part, real in ((drawn[~right], data[0][:300]), (drawn[right], data[0][300:400])):
        torch.testing.assert_close(part.mean(0), real.mean(0), atol=0.05, rtol=0)
        torch.testing.assert_close(part.var(0), real.var(0), atol=0.01, rtol=0.08)


def test_one_component_suffices_where_there_is_one_part(data):
    features, label = data
    drawn = GaussianMixture().fit(features, label).sample(1, 20_000, 0)
    real = features[label == 1]
    torch.testing.assert_close(drawn.mean(0), real.mean(0), atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.var(0, correction=0), real.var(0, correction=0), atol=0, rtol=0.05)


def test_a_small_class_is_one_normal_distribution_of_shrunk_variance(data):
    features, label = data
    groups = [features[label == y] for y in range(3)]
    pooled = torch.cat([x - x.mean(0) for x in groups]).square().mean(0)
    sampler = GaussianMixture().fit(features, label)
    for y, x in ((2, groups[2]), (3, features[-1:])):
        a = len(x) / (len(x) + 20)
        expected = a * x.var(0, correction=0) + (1 - a) * pooled
        drawn = sampler.sample(y, 20_000, 0)
        torch.testing.assert_close(drawn.var(0), expected, atol=0, rtol=0.05)
        torch.testing.assert_close(drawn.mean(0), x.mean(0), atol=0.1, rtol=0)


def test_components_are_capped_by_rows(data):
    # One row in 100 per component leaves class 0 at most four, and class 1 one.
    one = GaussianMixture(components=1).fit(*data).sample(0, 4000, 0)
    assert ((one[:, 0] > 3.5) & (one[:, 0] < 8)).float().mean() > 0.2
    capped = GaussianMixture(components=3, rows=201).fit(*data).sample(0, 4000, 0)
    assert torch.equal(one, capped)


def test_rows_all_alike_are_repeated():
    features, label = torch.full((60, 3), 1.5), torch.zeros(60, dtype=torch.long)
    assert (GaussianMixture().fit(features, label).sample(0, 30, 0) == 1.5).all()


def test_the_same_fit_for_the_same_seed(data):
    first, again, other = (GaussianMixture(seed=s).fit(*data).sample(0, 50, 0) for s in (0, 0, 1))
    assert torch.equal(first, again)
    torch.testing.assert_close(first, other, atol=0.5, rtol=0)


def test_a_single_row_with_nothing_to_borrow_is_refused(data):
    with pytest.raises(UserError, match="Class 3 has 1 feature, no variance"):
        GaussianMixture(strength=0).fit(*data)
    with pytest.raises(UserError, match="Class 0 has 1 feature, no variance"):
        GaussianMixture().fit(data[0][:1], data[1][:1])


@pytest.mark.parametrize("wrong", [{"components": 0}, {"rows": 1}, {"strength": -1}, {"strength": math.nan}])
def test_bad_parameters_are_refused(data, wrong):
    with pytest.raises(UserError, match=f"The '{next(iter(wrong))}' parameter of GaussianMixture must be"):
        GaussianMixture(**wrong).fit(*data)

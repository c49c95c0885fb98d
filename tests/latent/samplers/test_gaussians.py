import math

import pytest
import torch
from sklearn.covariance import OAS

from fgsynth.latent.checks import by_class
from fgsynth.latent.samplers.gaussians import DistributionCalibration, Gaussian, ShrunkMeans
from fgsynth.latent.shrinkage import Whitening, shrunk_means
from fgsynth.utils.errors import UserError


def shrunk(x, **options):
    return torch.from_numpy(OAS(**options).fit(x.double().numpy()).covariance_)


def classes(sizes, k, seed=0):
    """Classes with different means and covariances."""
    g = torch.Generator().manual_seed(seed)
    parts = [
        torch.randn(n, k, generator=g) @ torch.randn(k, k, generator=g) / k**0.5 * (y + 1) + 10 * y
        for y, n in enumerate(sizes)
    ]
    return torch.cat(parts), torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def assert_follows(x, mean, covariance):
    """Mean and covariance of the draws x (n, k) agree within six standard errors and with their size.

    Six, as a matrix has thousands of entries: the largest of 4,000 passes five once in 400 draws.
    """
    n, x = len(x), x.double()
    spread = covariance.diagonal()
    error = (spread / n).sqrt()
    assert ((x.mean(0) - mean).abs() <= 6 * error + 1e-5).all()
    # Of normal draws, the variance of an entry of the covariance is (S_ii S_jj + S_ij^2) / n.
    error = ((spread[:, None] * spread + covariance**2) / n).sqrt()
    assert ((torch.cov(x.T) - covariance).abs() <= 6 * error + 1e-6).all()
    assert x.var(0).sum() == pytest.approx(float(covariance.trace()), rel=0.1)


# Fewer dimensions than rows, more than a class has, and more than there are rows.
@pytest.mark.parametrize("k", [4, 25, 90])
@pytest.mark.parametrize("strength", [0, 20, math.inf])
def test_samples_have_the_fitted_mean_and_covariance(k, strength):
    features, label = classes([40, 12], k)
    groups = [features[label == y] for y in (0, 1)]
    sampler = Gaussian(strength).fit(features, label)
    centred = torch.cat([x - x.mean(0) for x in groups])
    for y, x in enumerate(groups):
        a = len(x) / (len(x) + strength)
        covariance = a * shrunk(x) + (1 - a) * shrunk(centred, assume_centered=True)
        assert_follows(sampler.sample(y, 6000, 3), x.double().mean(0), covariance)


@pytest.mark.parametrize("strength", [20, math.inf])
def test_a_class_of_one_row_borrows(strength):
    features, label = classes([40, 1], 6)
    x = features[:40]
    sampler = Gaussian(strength).fit(features, label)
    share = strength / (1 + strength) if strength < math.inf else 1
    assert_follows(sampler.sample(1, 6000, 0), features[40].double(), share * shrunk(x))


@pytest.mark.parametrize(("sizes", "strength", "y"), [([40, 1], 0, 1), ([1, 1], 20, 0), ([1], math.inf, 0)])
def test_one_row_and_nothing_to_borrow_is_refused(sizes, strength, y):
    with pytest.raises(UserError, match=f"Class {y} has 1 feature, no covariance of its own and none to"):
        Gaussian(strength).fit(*classes(sizes, 3))


def test_columns_all_alike_stay_so_without_shrinkage_across_columns():
    features, label = torch.full((12, 5), 2.5), torch.tensor([0] * 8 + [1] * 4)
    for strength in (0, 20, math.inf):
        drawn = Gaussian(strength).fit(features, label).sample(1, 50, 0)
        torch.testing.assert_close(drawn, torch.full((50, 5), 2.5), atol=1e-5, rtol=0)


def test_own_covariances_know_nothing_of_other_classes():
    features, label = classes([30, 10, 20], 5)
    other = features.clone()
    other[label != 1] = other[label != 1] * 7 - 3
    before, after = (Gaussian(0).fit(x, label).sample(1, 20, 0) for x in (features, other))
    assert torch.equal(before, after)
    assert not torch.equal(before, Gaussian(20).fit(other, label).sample(1, 20, 0))


@pytest.mark.parametrize("strength", [-1, math.nan])
def test_strength_is_not_negative(strength):
    with pytest.raises(UserError, match=r"'strength' parameter of Gaussian must be .* Got (-1|nan) instead"):
        Gaussian(strength).fit(*classes([4, 4], 3))


@pytest.mark.parametrize("k", [4, 70])
def test_a_rare_class_is_calibrated_by_its_nearest_heads(k):
    features, label = classes([50, 60, 55, 3, 1], k)
    groups = [features[label == y].double() for y in range(5)]
    sampler = DistributionCalibration(neighbours=2, alpha=0.3, head=50).fit(features, label)
    # The means are 10 y in every dimension: of 3 and 4 the nearest heads are 2 and 1.
    average = (shrunk(groups[1]) + shrunk(groups[2])) / 2
    covariance = average + 0.3 * average.trace() / k * torch.eye(k)
    for y in (3, 4):
        mean = (groups[y].mean(0) + groups[1].mean(0) + groups[2].mean(0)) / 3
        assert_follows(sampler.sample(y, 6000, 0), mean, covariance)
    assert_follows(sampler.sample(0, 6000, 0), groups[0].mean(0), shrunk(groups[0]))


def test_with_fewer_heads_than_neighbours_all_lend():
    features, label = classes([50, 3], 4)
    x, y = features[:50].double(), features[50:].double()
    sampler = DistributionCalibration(neighbours=5, alpha=0, head=50).fit(features, label)
    assert_follows(sampler.sample(1, 6000, 0), (x.mean(0) + y.mean(0)) / 2, shrunk(x))


def test_where_no_class_is_a_head_the_largest_are():
    features, label = classes([3, 9, 1, 8], 4)
    groups = [features[label == y].double() for y in range(4)]
    sampler = DistributionCalibration(neighbours=2, alpha=0, head=10).fit(features, label)
    average = (shrunk(groups[1]) + shrunk(groups[3])) / 2
    for y in (0, 2):
        mean = (groups[y].mean(0) + groups[1].mean(0) + groups[3].mean(0)) / 3
        assert_follows(sampler.sample(y, 6000, 0), mean, average)
    assert_follows(sampler.sample(3, 6000, 0), groups[3].mean(0), shrunk(groups[3]))
    with pytest.raises(UserError, match="Class 0 has 1 feature, as all classes have"):
        DistributionCalibration().fit(*classes([1, 1], 4))


@pytest.mark.parametrize(
    "wrong", [{"neighbours": 0}, {"alpha": -0.1}, {"alpha": math.inf}, {"alpha": math.nan}, {"head": 1}]
)
def test_calibration_refuses_bad_parameters(wrong):
    with pytest.raises(
        UserError, match=f"The '{next(iter(wrong))}' parameter of DistributionCalibration must"
    ):
        DistributionCalibration(**wrong).fit(*classes([4, 4], 3))


def test_shrunk_means_are_drawn_from_their_predictive_distribution():
    features, label = classes([40, 12, 1], 6)
    features[:, 0] += 100 * label  # classes lie apart: nothing is shrunk to speak of
    groups = by_class(features, label)
    whitening = Whitening.fit(groups)
    covariance = (whitening.back.T @ whitening.back).double()
    sampler = ShrunkMeans().fit(features, label)
    for y, own in shrunk_means(groups, whitening).items():
        mean = own.mean.double() @ whitening.back.double()
        assert_follows(sampler.sample(y, 6000, 0), mean, (1 + own.spread**2) * covariance)
        assert own.spread**2 == pytest.approx(1 / own.n, rel=0.05)

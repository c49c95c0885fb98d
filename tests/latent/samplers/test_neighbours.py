import math

import numpy as np
import pytest
import torch
from imblearn.over_sampling import SMOTE
from scipy.stats import gaussian_kde, ks_2samp

from fgsynth.latent.samplers import neighbours
from fgsynth.latent.samplers.neighbours import KernelDensity, Smote
from fgsynth.utils.errors import UserError


@pytest.fixture
def data():
    g = torch.Generator().manual_seed(0)
    parts = [torch.randn(40, 3, generator=g), 2 * torch.randn(6, 3, generator=g) + 9, torch.ones(1, 3) * 30]
    return torch.cat(parts), torch.tensor([0] * 40 + [1] * 6 + [2])


def test_scotts_bandwidth_is_scipys(data):
    features, label = data
    sampler = KernelDensity().fit(features, label)
    x = features[:40]
    within = torch.cat([x - x.mean(0), features[40:46] - features[40:46].mean(0)]).square().mean(0)
    factor = gaussian_kde(x.T.numpy(), bw_method="scott").factor
    drawn = sampler.sample(0, 40_000, 0)
    expected = x.var(0, correction=0) + factor**2 * within
    torch.testing.assert_close(drawn.var(0), expected, atol=0, rtol=0.04)


@pytest.mark.parametrize("bandwidth", ["wide", -0.1, math.inf, math.nan])
def test_unknown_bandwidths_are_refused(data, bandwidth):
    with pytest.raises(
        UserError, match=r"'bandwidth' parameter of KernelDensity must be a str among {'scott'}"
    ):
        KernelDensity(bandwidth).fit(*data)


@pytest.mark.parametrize("y", [0, 1])
def test_density_has_the_moments_of_the_class_plus_the_bandwidth(data, y):
    features, label = data
    groups = [features[label == c] for c in (0, 1)]
    x = groups[y]
    within = torch.cat([g - g.mean(0) for g in groups])
    drawn = KernelDensity(0.5).fit(features, label).sample(y, 40_000, 0)
    covariance = torch.cov(x.T, correction=0) + 0.25 * within.square().mean(0).diag()
    torch.testing.assert_close(drawn.mean(0), x.mean(0), atol=0.06, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), covariance, atol=0.15, rtol=0.03)


def test_bandwidth_zero_repeats_the_features(data):
    drawn = KernelDensity(0).fit(*data).sample(1, 300, 0)
    assert {tuple(x) for x in drawn.tolist()} == {tuple(x) for x in data[0][40:46].tolist()}


def test_a_column_all_alike_stays_so(data):
    features, label = data
    features[:, 1] = 4
    assert (KernelDensity().fit(features, label).sample(0, 100, 0)[:, 1] == 4).all()


def test_density_of_one_row_needs_the_pooled_spread(data):
    drawn = KernelDensity().fit(*data).sample(2, 5000, 0)
    torch.testing.assert_close(drawn.mean(0), torch.full((3,), 30.0), atol=0.1, rtol=0)
    assert drawn.std() > 0.5
    with pytest.raises(UserError, match="Class 0 has 1 feature and no variance"):
        KernelDensity().fit(data[0][:2], torch.arange(2))


def on_segments(drawn, x, k):
    """Whether every row drawn lies between a row of x and one of that row's k nearest others."""
    near = torch.cdist(x, x).fill_diagonal_(math.inf).topk(min(k, len(x) - 1), largest=False).indices
    a, b = x[:, None, :].expand(-1, near.shape[1], -1).flatten(0, 1), x[near].flatten(0, 1)
    along = b - a
    # The nearest point of each segment to each draw.
    t = ((drawn[:, None] - a) * along).sum(2) / along.square().sum(1)
    gap = (drawn[:, None] - a - t.clamp(0, 1)[..., None] * along).norm(dim=2)
    return gap.min(1).values < 1e-4


@pytest.mark.parametrize(("y", "k"), [(0, 5), (0, 1), (1, 5), (1, 9)])
def test_smote_is_on_a_segment_to_a_near_neighbour_of_the_class(data, y, k):
    features, label = data
    drawn = Smote(k).fit(features, label).sample(y, 500, 0)
    assert on_segments(drawn, features[label == y], k).all()


def test_smote_in_chunks_has_the_distribution_of_one_call(data):
    features, label = data
    keep = label < 2
    theirs, its_label = SMOTE(k_neighbors=5, random_state=0, sampling_strategy={1: 6 + 4000}).fit_resample(
        features[keep].numpy(), label[keep].numpy()
    )
    theirs = theirs[46:]
    assert (its_label[46:] == 1).all()
    assert on_segments(torch.from_numpy(theirs), features[label == 1], 5).all()
    ours = Smote(5).fit(features, label).sample(1, 4000, 0).numpy()
    directions = np.random.default_rng(0).normal(size=(3, 6))
    for mine, other in zip((ours @ directions).T, (theirs @ directions).T, strict=True):
        assert ks_2samp(mine, other).pvalue > 0.001


def test_smote_reaches_every_neighbour_and_repeats_a_single_row(data):
    features, label = data
    sampler = Smote().fit(features, label)
    assert torch.equal(sampler.sample(2, 7, 0), features[[46] * 7])
    pair = Smote().fit(torch.tensor([[0.0], [1.0], [9.0], [9.0]]), torch.tensor([0, 0, 1, 1]))
    drawn = pair.sample(0, 2000, 0)
    assert 0 <= drawn.min() < 0.01 < 0.99 < drawn.max() <= 1
    assert (pair.sample(1, 100, 0) == 9).all()


def test_smote_needs_a_neighbour(data):
    with pytest.raises(UserError, match=r"The 'neighbours' parameter of Smote must be .* Got 0 instead"):
        Smote(0).fit(*data)


def test_smote_finds_the_neighbours_of_a_class_once(data, monkeypatch):
    fitted = []
    search = neighbours.NearestNeighbors.fit
    monkeypatch.setattr(
        neighbours.NearestNeighbors, "fit", lambda self, x: fitted.append(len(x)) or search(self, x)
    )
    sampler = Smote().fit(*data)
    sampler.sample(1, 1000, 0)
    sampler.sample(1, 300, 1)
    assert fitted == [6]


def test_a_class_of_smote_depends_on_no_other(data):
    features, label = data[0][:46], data[1][:46]
    other = features.clone()
    other[label == 0] = 5 - 3 * other[label == 0]
    first, second = (Smote().fit(x, label).sample(1, 50, 0) for x in (features, other))
    assert torch.equal(first, second)

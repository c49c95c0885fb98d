import numpy as np
import pytest
import torch
from sklearn.covariance import OAS

from fgsynth.latent import covariance
from fgsynth.latent.covariance import gram_moments, low_rank, oas, pooled, scatter, variance


def rows(n, k, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, k, generator=g) * torch.linspace(0.2, 3, k) + 10


@pytest.mark.parametrize(("n", "k"), [(2, 5), (5, 40), (40, 40), (300, 8), (50, 1), (3, 2)])
def test_shrinkage_is_scikit_learns(n, k):
    x = rows(n, k)
    reference = OAS().fit(x.double().numpy())
    centred = x.double() - x.double().mean(0)
    for m in (scatter([x], k)[1], gram_moments(centred)):
        assert oas(m) == pytest.approx(reference.shrinkage_, rel=1e-6, abs=1e-9)
    factor, isotropic = low_rank(x)
    assert len(factor) == min(n, k)
    full = factor.T @ factor + isotropic * torch.eye(k)
    np.testing.assert_allclose(full, reference.covariance_, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("n", [3, 30])
def test_rows_all_alike_have_no_covariance(n):
    factor, isotropic = low_rank(torch.full((n, 4), 0.1))
    assert isotropic == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(factor, torch.zeros_like(factor), atol=1e-7, rtol=0)


@pytest.mark.parametrize("k", [3, 60])
def test_pooled_is_the_shrunk_covariance_of_centred_classes(k, monkeypatch):
    # Several blocks, and classes cut by them.
    monkeypatch.setattr(covariance, "BLOCK", 16)
    groups = {0: rows(30, k, 0), 1: rows(7, k, 1) - 50, 2: rows(1, k, 2)}
    centred = torch.cat([x.double() - x.double().mean(0) for x in (groups[0], groups[1])])
    reference = OAS(assume_centered=True).fit(centred.numpy())
    found = pooled(groups)
    full = found.turn.double().T @ torch.diag(found.variance) @ found.turn.double()
    np.testing.assert_allclose(full, reference.covariance_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variance([groups[0], groups[1]], k), (centred**2).mean(0), rtol=1e-9)


def test_nothing_is_pooled_from_single_rows():
    assert pooled({0: rows(1, 3), 1: rows(1, 3)}) is None


def test_a_covariance_is_found_once_for_the_same_rows_and_anew_for_others(monkeypatch):
    found, plain = [], covariance._decomposed
    monkeypatch.setattr(covariance, "_decomposed", lambda x: found.append(1) or plain(x))
    groups = {0: rows(12, 4, 5), 1: rows(9, 4, 6)}
    first = pooled(groups)
    assert pooled({y: x.clone() for y, x in groups.items()}) is first
    assert len(found) == 1
    groups[1][3, 2] += 1
    assert not torch.equal(pooled(groups).variance, first.variance)
    cut = torch.cat([*groups.values()]).split([11, 10])
    assert not torch.equal(pooled(dict(enumerate(cut))).variance, pooled(groups).variance)
    # Single rows have no part in it, so that adding one changes nothing.
    assert torch.equal(pooled(groups | {2: rows(1, 4, 7)}).variance, pooled(groups).variance)
    assert len(found) == 4

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from scipy.spatial.distance import cdist
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

from fgsynth.evaluate.fid_coverage import density_coverage, fid
from fgsynth.utils.errors import UserError


def _pair(n, m, d, seed=0):
    """Two correlated Gaussian clouds, apart: (n, d) and (m, d)."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(2, d, d))
    return rng.normal(size=(n, d)) @ mix[0], rng.normal(size=(m, d)) @ mix[1] + 0.5


@pytest.mark.parametrize(("n", "m", "d"), [(500, 400, 16), (50, 300, 20), (20, 30, 64), (2, 40, 30)])
def test_fid_is_torch_fidelitys_also_when_singular(n, m, d):
    real, fake = _pair(n, m, d)
    statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (real, fake)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]
    # Theirs takes roots of eigenvalues that should be 0 when n < d.
    assert fid(real, fake) == pytest.approx(expected, rel=1e-6 if n < d else 1e-10)


def test_fid_of_a_shift_is_its_square():
    real = np.random.default_rng(0).normal(size=(100, 8))
    shift = np.arange(8.0)
    assert fid(real, real + shift) == pytest.approx((shift**2).sum(), rel=1e-12)


def test_fid_of_scaled_features_by_hand():
    # One axis per row of variance 1 and 9 about 0 and 1: (0 - 1)^2 + (1 - 3)^2.
    unit = np.array([[-1.0], [1.0]]) / np.sqrt(2)
    assert fid(unit, 1 + 3 * unit) == pytest.approx(5)


@pytest.mark.parametrize("shape", [(200, 10), (10, 200)])
def test_fid_of_a_set_and_itself_is_zero_and_never_less(shape):
    x = 1000 + np.random.default_rng(1).normal(size=shape)
    assert 0 <= fid(x, x) < 1e-9
    assert 0 <= fid(x, x[::-1].copy()) < 1e-9


@pytest.mark.parametrize("k", [1, 3, 5, 20])
def test_density_and_coverage_are_prdcs(k, capsys):
    real, fake = _pair(60, 45, 6, seed=k)
    fake = fake[:22] + 1  # few and apart, so that they miss some balls at every k
    expected = compute_prdc(real, fake, k)
    capsys.readouterr()  # it prints
    assert density_coverage(real, fake, k) == pytest.approx((expected["density"], expected["coverage"]))
    assert 0 < expected["coverage"] < 1


@pytest.mark.parametrize("k", [1, 2, 4])
def test_ties_are_prdcs(k, capsys):
    rng = np.random.default_rng(k)
    real, fake = rng.integers(0, 4, (2, 40, 2)).astype(float)  # a small grid: mostly ties and copies
    expected = compute_prdc(real, fake, k)
    capsys.readouterr()
    assert density_coverage(real, fake, k) == pytest.approx((expected["density"], expected["coverage"]))


def test_a_fake_as_far_as_the_kth_neighbour_is_outside():
    real = np.array([[0.0], [1.0], [3.0]])  # radii for k = 1: 1, 1, 2
    assert density_coverage(real, np.array([[1.0], [9.0]]), k=1) == (0.5, 1 / 3)  # 1.0: in its own ball only
    assert density_coverage(real, np.array([[0.5], [9.0]]), k=1) == (1.0, 2 / 3)


@pytest.mark.parametrize("chunk", [1, 7, 64, 1024])
def test_chunks_and_rounding_do_not_matter(chunk):
    # Copies tie with the neighbours they copy, far from the origin where squares lose digits.
    real = 30 + np.random.default_rng(2).normal(size=(61, 40)).astype(np.float32)
    assert density_coverage(real, real.copy(), 3, chunk) == (1.0, 1.0)
    for fake in (real[3:10], real[::2], real[:33] + np.float32(0.5)):
        radius = np.sort(cdist(real, real))[:, [3]]
        inside = cdist(real, fake) < radius  # without the matrix product, so equal distances are equal
        expected = inside.sum() / (3 * len(fake)), inside.any(1).mean()
        assert density_coverage(real, fake, 3, chunk) == pytest.approx(expected)


def test_a_set_far_away_has_neither_density_nor_coverage():
    real, fake = _pair(30, 30, 4)
    assert density_coverage(real, fake + 1e4) == (0, 0)


def test_tensors_do_as_well_as_arrays():
    real, fake = _pair(30, 20, 4)
    tensors = torch.from_numpy(real), torch.from_numpy(fake)
    assert fid(*tensors) == fid(real, fake)
    assert density_coverage(*tensors) == density_coverage(real, fake)


@pytest.mark.parametrize("metric", [fid, density_coverage])
def test_bad_features_are_named(metric):
    good, hole = np.random.default_rng(0).normal(size=(2, 9, 3))
    hole[4, 1] = np.nan
    for real, fake, sentence in [
        (good[:1], good, "real features have shape .1, 3."),
        (good, good[0], "fake features have shape .3,."),
        (good, hole, "Row 4 of the fake features"),
        (good, good[:, :2], "3 real and 2 fake features per row"),
    ]:
        with pytest.raises(UserError, match=sentence):
            metric(real, fake)


@pytest.mark.parametrize("k", [0, 9])
def test_k_must_leave_a_neighbour(k):
    x = np.random.default_rng(0).normal(size=(9, 3))
    with pytest.raises(UserError, match=f"k = {k} nearest neighbours of 9 real rows: choose k from 1 to 8"):
        density_coverage(x, x, k)
    assert density_coverage(x, x, 8)[1] == 1

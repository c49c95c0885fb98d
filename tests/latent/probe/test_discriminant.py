import numpy as np
import pytest
import torch
from sklearn.covariance import OAS
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from fgsynth.latent.probe.discriminant import check_classes, discriminant, statistics
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator


@pytest.fixture(scope="module")
def data():
    g = generator("discriminant")
    label = torch.arange(3).repeat_interleave(torch.tensor([40, 25, 15]))
    mix = torch.randn(6, 6, generator=g)
    return torch.randn(80, 6, generator=g) @ mix + 2 * torch.randn(3, 6, generator=g)[label] + 5, label


def test_covariance_is_scikit_learns_oas_of_the_residuals(data):
    e, y = data
    found = statistics(e, y, 3)
    residual = e - found.means[y]
    expected = OAS(assume_centered=True).fit(residual.double().numpy()).covariance_
    np.testing.assert_allclose((found.axes * found.variance) @ found.axes.T, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.mean, e.mean(0))


def test_discriminant_agrees_with_scikit_learn_given_the_same_covariance(data):
    e, y = data
    found = statistics(e, y, 3)

    class Pooled:
        covariance_ = ((found.axes * found.variance) @ found.axes.T).double().numpy()

        def fit(self, _):
            return self

    theirs = LinearDiscriminantAnalysis("lsqr", covariance_estimator=Pooled(), priors=[1 / 3] * 3)
    theirs.fit(e.double().numpy(), y.numpy())
    weight, bias = discriminant(found)
    ours = torch.softmax(e @ weight + bias, 1).double().numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(e.double().numpy()), atol=1e-4)


def test_some_rows_give_the_covariance_and_all_rows_the_means(data):
    few, whole = statistics(*data, 3, rows=20), statistics(*data, 3)
    assert torch.equal(few.means, whole.means)
    assert not torch.equal(few.variance, whole.variance)


def test_real_rows_give_the_covariance_whatever_stands_after_them(data):
    e, y = data
    both = torch.cat([e, 3 * e + 1]), torch.cat([y, y])
    found, alone, whole = statistics(*both, 3, real=len(e)), statistics(e, y, 3), statistics(*both, 3)
    assert torch.equal(found.variance, alone.variance)
    assert torch.equal(found.axes, alone.axes)
    assert torch.equal(found.means, whole.means)


def test_degenerate_features_keep_a_positive_variance():
    flat = torch.ones(6, 4)
    found = statistics(flat, torch.tensor([0, 0, 0, 1, 1, 1]), 2)
    assert (found.variance > 0).all()
    assert all(part.isfinite().all() for part in discriminant(found))
    single = statistics(torch.eye(3), torch.arange(3), 3)
    assert (single.variance > 0).all()


def test_a_class_without_rows_has_the_mean_of_all():
    e = torch.tensor([[0.0, 1.0], [2.0, 1.0]])
    found = statistics(e, torch.tensor([0, 0]), 2)
    assert found.means[1].tolist() == [1.0, 1.0]
    assert found.share.tolist() == [1.0, 0.0]


def test_classes_out_of_range_or_empty_are_refused():
    with pytest.raises(UserError, match="Class 3 among the features: their classes are 0 to 2"):
        check_classes(torch.zeros(2, 1), torch.tensor([0, 3]), 3)
    with pytest.raises(UserError, match="Class 1 has no features"):
        check_classes(torch.zeros(2, 1), torch.tensor([0, 2]), 3)
    with pytest.raises(UserError, match="1 class of features: give at least 2"):
        check_classes(torch.zeros(2, 1), torch.tensor([0, 0]), 1)

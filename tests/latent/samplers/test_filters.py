import pytest
import torch

from fgsynth.latent.samplers.filters import NearestKept, OnSphere
from fgsynth.latent.samplers.gaussians import Gaussian
from fgsynth.latent.samplers.noise import CHUNK
from fgsynth.utils.errors import UserError

CENTRES = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])


@pytest.fixture
def data():
    g = torch.Generator().manual_seed(0)
    label = torch.arange(3).repeat_interleave(60)
    return CENTRES[label] + torch.randn(180, 2, generator=g), label


def test_the_rows_nearest_to_the_prototype_are_kept_in_order(data):
    features, label = data
    plain = Gaussian().fit(features, label).sample(1, 4 * CHUNK, 4)
    kept = NearestKept(Gaussian(), keep=0.25).fit(features, label).sample(1, CHUNK, 4)
    distance = (plain - features[label == 1].mean(0)).norm(dim=1)
    n = CHUNK // 4
    for j in range(4):
        near = distance[CHUNK * j :][:CHUNK].argsort()[:n].sort().values
        assert torch.equal(kept[n * j :][:n], plain[CHUNK * j + near])


def test_keep_all_is_the_sampler_itself(data):
    expected = Gaussian().fit(*data).sample(1, 300, 0)
    assert torch.equal(NearestKept(Gaussian(), keep=1).fit(*data).sample(1, 300, 0), expected)


@pytest.mark.parametrize("keep", [0, 1.1, float("nan")])
def test_bad_shares_are_refused(data, keep):
    with pytest.raises(
        UserError, match=rf"'keep' parameter of NearestKept must be .* \(0.0, 1.0\]. Got {keep}"
    ):
        NearestKept(Gaussian(), keep).fit(*data)
    with pytest.raises(UserError, match="'sampler' parameter of OnSphere must be an instance of"):
        OnSphere("gaussian").fit(*data)


@pytest.mark.parametrize("make", [NearestKept, OnSphere])
def test_the_sampler_given_is_not_changed(data, make):
    inner = Gaussian()
    make(inner).fit(*data)
    with pytest.raises(UserError, match="Class 0 was not fitted"):
        inner.sample(0, 1, 0)


@pytest.mark.parametrize("make", [NearestKept, OnSphere])
def test_wrappers_are_fitted_first(data, make):
    with pytest.raises(UserError, match="Class 1 was not fitted"):
        make(Gaussian().fit(*data)).sample(1, 1, 0)


def test_samples_on_the_sphere_have_length_one_and_the_class_direction(data):
    features, label = data
    drawn = OnSphere(Gaussian()).fit(5 * features + 20, label).sample(1, 2000, 0)
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(2000))
    real = torch.nn.functional.normalize(5 * features[label == 1] + 20).mean(0)
    torch.testing.assert_close(drawn.mean(0), real, atol=0.02, rtol=0)


def test_length_does_not_matter_on_the_sphere(data):
    features, label = data
    scaled = features * torch.linspace(1, 9, len(features))[:, None]
    first, second = (OnSphere(Gaussian()).fit(x, label).sample(0, 50, 0) for x in (features, scaled))
    torch.testing.assert_close(first, second, atol=1e-3, rtol=0)


def test_a_zero_feature_has_no_direction(data):
    features, label = data
    features[70] = 0
    with pytest.raises(UserError, match=r"Row 70 of the features \(class 1\) has no direction"):
        OnSphere(Gaussian()).fit(features, label)

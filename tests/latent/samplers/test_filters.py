import pytest
import torch

from fgsynth.latent.samplers.filters import Filtered, OnSphere
from fgsynth.latent.samplers.gaussians import Gaussian
from fgsynth.latent.samplers.noise import CHUNK
from fgsynth.utils.errors import UserError


class Nearest:
    """Logits of three classes: minus the squared distance to given centres."""

    def __init__(self, centres):
        self.centres = centres

    def logits(self, features):
        return -torch.cdist(features, self.centres).square()


CENTRES = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])


@pytest.fixture
def data():
    g = torch.Generator().manual_seed(0)
    label = torch.arange(3).repeat_interleave(60)
    return CENTRES[label] + torch.randn(180, 2, generator=g), label


def test_the_rows_nearest_to_the_prototype_are_kept_in_order(data):
    features, label = data
    plain = Gaussian().fit(features, label).sample(1, 4 * CHUNK, 4)
    kept = Filtered(Gaussian(), keep=0.25).fit(features, label).sample(1, CHUNK, 4)
    distance = (plain - features[label == 1].mean(0)).norm(dim=1)
    n = CHUNK // 4
    for j in range(4):
        near = distance[CHUNK * j :][:CHUNK].argsort()[:n].sort().values
        assert torch.equal(kept[n * j :][:n], plain[CHUNK * j + near])


def test_the_rows_most_probable_to_a_classifier_are_kept_in_order(data):
    features, label = data
    probe = Nearest(CENTRES)
    plain = Gaussian().fit(features, label).sample(2, CHUNK, 4)
    kept = Filtered(Gaussian(), 0.5, probe).fit(features, label).sample(2, CHUNK // 2, 4)
    probability = probe.logits(plain).softmax(1)[:, 2]
    assert torch.equal(kept, plain[probability.argsort(descending=True)[: CHUNK // 2].sort().values])


def test_all_that_the_classifier_gives_to_the_class_are_kept(data):
    features, label = data
    probe = Nearest(CENTRES)
    plain = Gaussian().fit(features, label).sample(0, 1024, 4)
    right = plain[probe.logits(plain).argmax(1) == 0]
    assert 256 < len(right) < 1000
    sampler = Filtered(Gaussian(), None, probe).fit(features, label)
    assert torch.equal(sampler.sample(0, len(right), 4), right)
    assert torch.equal(sampler.sample(0, 100, 4, start=150), right[150:250])
    assert sampler.sample(0, 0, 4, start=7).shape == (0, 2)


def test_keep_all_is_the_sampler_itself(data):
    expected = Gaussian().fit(*data).sample(1, 300, 0)
    assert torch.equal(Filtered(Gaussian(), keep=1).fit(*data).sample(1, 300, 0), expected)


def test_too_few_survivors_are_an_error_with_numbers(data):
    far = Nearest(CENTRES + torch.tensor([[100.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
    sampler = Filtered(Gaussian(), None, far, rounds=3).fit(*data)
    with pytest.raises(UserError, match="Class 0: the classifier gives it 0 of 1152 drawn features, 300 are"):
        sampler.sample(0, 300, 0)


@pytest.mark.parametrize("keep", [None, 0.5])
def test_a_class_unknown_to_the_classifier_is_named(data, keep):
    sampler = Filtered(Gaussian(), keep, Nearest(CENTRES[:2])).fit(*data)
    with pytest.raises(UserError, match="Class 2 is unknown to the classifier, which has 2"):
        sampler.sample(2, 5, 0)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"keep": None}, "give a probe or a share"),
        ({"keep": 0}, "Keep 0: give a share above 0"),
        ({"keep": 1.1}, r"Keep 1\.1"),
        ({"rounds": 0}, "0 rounds: give at least 1"),
    ],
)
def test_bad_parameters_are_refused(wrong, sentence):
    with pytest.raises(UserError, match=sentence):
        Filtered(Gaussian(), **wrong)


@pytest.mark.parametrize("make", [Filtered, OnSphere])
def test_the_sampler_given_is_not_changed(data, make):
    inner = Gaussian()
    make(inner).fit(*data)
    with pytest.raises(UserError, match="Class 0 was not fitted"):
        inner.sample(0, 1, 0)


@pytest.mark.parametrize("make", [Filtered, OnSphere])
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

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from fgsynth.latent.samplers.filters import NearestKept, OnSphere
from fgsynth.latent.samplers.registry import SAMPLERS
from fgsynth.utils.errors import UserError

SIZES, K = [110, 9, 1], 12
MAKERS = SAMPLERS | {
    "nearest kept": lambda: NearestKept(SAMPLERS["class gaussian"](), keep=0.3),
    "on the sphere": lambda: OnSphere(SAMPLERS["class gaussian"]()),
}


def table(seed, sizes=SIZES, k=K):
    """Three classes, each far along its own axis."""
    label = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    x = torch.randn(len(label), k, generator=torch.Generator().manual_seed(seed))
    return x + 2 * torch.eye(3, k)[label], label


@pytest.fixture(scope="module")
def fitted():
    data = table(0)
    samplers = {name: make().fit(*data) for name, make in MAKERS.items()}
    # The endless table of every class, as far as the tests go.
    return samplers, {name: [s.sample(y, 700, 11) for y in range(3)] for name, s in samplers.items()}


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=8, deadline=None)
@given(counts=st.lists(st.integers(0, 700), min_size=3, max_size=3))
def test_a_row_is_the_same_for_any_number_and_classes(fitted, name, counts):
    sampler, endless = fitted[0][name], fitted[1][name]
    expected = torch.cat([x[:n] for x, n in zip(endless, counts, strict=True)])
    wanted = torch.tensor(counts)
    features, label = sampler.sample_all(wanted, 11)
    assert torch.equal(features, expected)
    assert torch.equal(label, torch.arange(3).repeat_interleave(wanted))


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=8, deadline=None)
@given(start=st.integers(0, 500), n=st.integers(0, 200), y=st.integers(0, 2))
def test_a_range_is_a_cut_out_of_the_class(fitted, name, start, n, y):
    assert torch.equal(fitted[0][name].sample(y, n, 11, start=start), fitted[1][name][y][start : start + n])


@pytest.mark.parametrize("name", MAKERS)
def test_seeds_differ_and_values_are_float32(fitted, name):
    drawn, other = fitted[1][name][0], fitted[0][name].sample(0, 700, 12)
    assert drawn.dtype == torch.float32
    assert drawn.shape == (700, K)
    assert drawn.isfinite().all()
    assert not torch.equal(drawn, other)


@pytest.mark.parametrize("name", MAKERS)
def test_fitting_again_forgets(name):
    sampler = MAKERS[name]().fit(*table(1))
    sampler.sample(2, 3, 0)
    features, label = table(2, [105, 104, 0], 7)
    sampler.fit(features, label)
    fresh = MAKERS[name]().fit(features, label)
    counts = torch.tensor([40, 30])
    assert torch.equal(sampler.sample_all(counts, 0)[0], fresh.sample_all(counts, 0)[0])
    with pytest.raises(UserError, match="Class 2 was not fitted"):
        sampler.sample(2, 1, 0)


@pytest.mark.parametrize("name", MAKERS)
def test_fitting_changes_neither_parameters_nor_features(name):
    sampler, (features, label) = MAKERS[name](), table(1)
    before = {key: copy.deepcopy(value) for key, value in vars(sampler).items() if not key.startswith("_")}
    kept = features.clone()
    sampler.fit(features, label)
    after = {key: vars(sampler)[key] for key in before if not hasattr(before[key], "__dict__")}
    assert after == {key: before[key] for key in after}
    assert torch.equal(features, kept)
    drawn = sampler.sample(0, 5, 0)
    features.zero_()
    assert torch.equal(sampler.sample(0, 5, 0), drawn)


@pytest.mark.parametrize("name", MAKERS)
def test_bad_input_is_refused_by_every_sampler(name):
    sampler, (features, label) = MAKERS[name](), table(1)
    with pytest.raises(UserError, match="was not fitted"):
        sampler.sample(0, 1, 0)
    with pytest.raises(UserError, match="labels of the features"):
        sampler.fit(features, ["a"] * len(features))
    with pytest.raises(UserError, match="120 rows of features but labels"):
        sampler.fit(features, label[:-1])
    features[115, 3] = float("nan")
    with pytest.raises(UserError, match=r"Row 115 of the features \(class 1\)"):
        sampler.fit(features, label)


@pytest.mark.parametrize("name", MAKERS)
def test_a_class_of_one_row_can_be_filled(fitted, name):
    assert fitted[1][name][2].isfinite().all()


def test_names_are_those_of_the_field():
    assert list(SAMPLERS) == [
        "class gaussian",
        "tied gaussian",
        "shrunk means, tied covariance",
        "distribution calibration",
        "kernel density",
        "gaussian mixture",
        "smote",
    ]


@pytest.mark.parametrize("name", MAKERS)
def test_samplers_are_estimators(name):
    sampler = MAKERS[name]()
    parameters = sampler.get_params()
    assert (
        clone(sampler.fit(*table(0))).get_params(deep=False).keys() == sampler.get_params(deep=False).keys()
    )
    for key, value in parameters.items():
        if isinstance(value, int | float):
            assert sampler.set_params(**{key: value + 1}).get_params()[key] == value + 1

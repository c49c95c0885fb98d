import pickle

import numpy as np
import pytest
import torch
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fgsynth.latent.estimator import LatentClassifier, LatentOverSampler
from fgsynth.latent.probe.linear import fit_probe
from fgsynth.latent.samplers.gaussians import Gaussian
from fgsynth.latent.samplers.registry import SAMPLERS
from fgsynth.utils.errors import UserError

NAMES = np.array(["cat", "dog", "emu"])


@parametrize_with_checks([LatentClassifier(), LatentClassifier(sampler=None)])
def test_scikit_learns_conventions_hold(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def data():
    """80, 30 and 6 features of cats, dogs and emus, float64."""
    rng = np.random.default_rng(0)
    index = np.repeat(np.arange(3), [80, 30, 6])
    return rng.normal(size=(116, 4)) + 1.2 * rng.normal(size=(3, 4))[index], NAMES[index]


def test_it_is_sampler_then_probe(data):
    x, y = data
    model = LatentClassifier(random_state=3).fit(x, y)
    assert model.n_synthetic_.tolist() == [0, 50, 74]
    e, label = torch.tensor(x, dtype=torch.float32), torch.tensor(np.searchsorted(NAMES, y))
    seed = int(np.random.RandomState(3).randint(2**31 - 1))
    new, new_label = Gaussian().fit(e, label).sample_all(torch.tensor([0, 50, 74]), seed)
    e, label = torch.cat([e, new]), torch.cat([label, new_label])
    probe = fit_probe(e, label, label.bincount(), weight_decay=1e-4)
    torch.testing.assert_close(model.probe_.weight, probe.weight)
    assert set(model.predict(x)) <= set(NAMES)
    np.testing.assert_allclose(model.predict_proba(x).sum(1), 1)
    np.testing.assert_array_equal(NAMES[model.decision_function(x).argmax(1)], model.predict(x))


def test_labels_may_be_any_and_renaming_them_changes_nothing(data):
    x, y = data
    index = np.searchsorted(NAMES, y)
    by_name = LatentClassifier().fit(x, y)
    by_number = LatentClassifier().fit(x, np.array([-7, 2, 100])[index])
    assert by_number.classes_.tolist() == [-7, 2, 100]
    np.testing.assert_allclose(by_name.decision_function(x), by_number.decision_function(x))
    assert set(by_number.predict(x)) <= {-7, 2, 100}


def test_sampling_strategy_has_imbalanced_learns_meaning(data):
    x, y = data
    wanted = {
        "auto": [0, 50, 74],
        "minority": [0, 0, 74],
        "not minority": [0, 50, 0],
    }
    for strategy, counts in wanted.items():
        assert LatentClassifier(sampling_strategy=strategy).fit(x, y).n_synthetic_.tolist() == counts
    by_dict = LatentClassifier(sampling_strategy={"emu": 40}).fit(x, y)
    assert by_dict.n_synthetic_.tolist() == [0, 0, 34]
    two = y != "dog"
    assert LatentClassifier(sampling_strategy=0.5).fit(x[two], y[two]).n_synthetic_.tolist() == [0, 34]
    with pytest.raises(ValueError, match="sampling_strategy"):
        LatentClassifier(sampling_strategy="most").fit(x, y)


def test_without_a_sampler_it_is_a_probe_with_balanced_softmax(data):
    x, y = data
    plain = LatentClassifier(sampler=None, balanced=0.0, weight_decay=1e-2, tolerance=1e-4).fit(x, y)
    theirs = LogisticRegression(C=1 / (2 * 116 * 1e-2), tol=1e-9, max_iter=1000).fit(x, y)
    np.testing.assert_allclose(plain.predict_proba(x), theirs.predict_proba(x), atol=1e-3)
    balanced = LatentClassifier(sampler=None, weight_decay=1e-2).fit(x, y)
    assert (balanced.predict(x) == "emu").sum() > (plain.predict(x) == "emu").sum()
    assert plain.n_synthetic_.tolist() == [0, 0, 0]


def test_the_prior_after_a_full_filling_is_uniform_and_that_of_the_real_features_is_not(data):
    x, y = data
    mixed, plain, real = (
        LatentClassifier(weight_decay=1e-2, **kwargs).fit(x, y).predict_proba(x)
        for kwargs in ({}, {"balanced": 0.0}, {"prior": "real"})
    )
    np.testing.assert_allclose(mixed, plain, atol=1e-4)
    assert real[:, 2].mean() > mixed[:, 2].mean() + 0.01


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_of_the_family_serves(data, name):
    x, y = data
    if name == "distribution calibration":
        x, y = np.vstack([x, x + 0.01]), np.concatenate([y, y])
    model = LatentClassifier(sampler=name).fit(x, y)
    assert model.score(x, y) > 0.5
    assert (model.n_synthetic_[1:] > 0).all()


def test_a_sampler_may_be_given_and_stays_as_it_was(data):
    sampler = Gaussian(strength=5.0)
    model = LatentClassifier(sampler=sampler).fit(*data)
    assert vars(sampler) == vars(Gaussian(strength=5.0))
    again = pickle.loads(pickle.dumps(clone(model).fit(*data)))
    np.testing.assert_array_equal(again.predict_proba(data[0]), model.predict_proba(data[0]))


def test_the_seed_decides(data):
    x, y = data
    first, same, other = (LatentClassifier(random_state=s).fit(x, y).decision_function(x) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_it_works_in_a_pipeline_and_a_grid_search(data):
    x, y = data
    pipeline = make_pipeline(StandardScaler(), LatentClassifier())
    grid = {
        "latentclassifier__weight_decay": [1e-3, 1e3],
        "latentclassifier__sampler": ["tied gaussian", None],
    }
    search = GridSearchCV(pipeline, grid, cv=2, scoring="balanced_accuracy").fit(x, y)
    assert search.best_params_["latentclassifier__weight_decay"] == 1e-3
    assert search.best_score_ > 0.5


def test_it_warns_where_it_did_not_converge(data):
    with pytest.warns(ConvergenceWarning, match="did not converge in 1 iterations: raise iterations"):
        LatentClassifier(iterations=1, tolerance=1e-9).fit(*data)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(sampler="magic"), "Unknown sampler 'magic': choose one of class gaussian, "),
        (dict(prior="none"), "Unknown prior 'none': choose 'real' or 'real.synthetic'"),
        (dict(head="cubic"), "Unknown head 'cubic'"),
        (dict(balanced=2.0), "Balanced 2.0: give a weight"),
    ],
)
def test_bad_parameters_are_both_kinds_of_error(data, change, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        LatentClassifier(**change).fit(*data)
    assert isinstance(caught.value, ValueError)


def test_oversampler_appends_synthetic_features_by_class(data):
    x, y = data
    sampler = LatentOverSampler(random_state=3)
    e, label = sampler.fit_resample(x, y)
    np.testing.assert_array_equal(e[:116], x)
    assert label[116:].tolist() == ["dog"] * 50 + ["emu"] * 74
    assert e.dtype == x.dtype
    assert sampler.sampling_strategy_ == {"dog": 50, "emu": 74}
    e32, _ = LatentOverSampler(sampling_strategy="minority").fit_resample(x.astype(np.float32), y)
    assert e32.dtype == np.float32
    assert len(e32) == 116 + 74


def test_oversampler_stands_in_a_pipeline_of_imbalanced_learn(data):
    x, y = data
    pipeline = make_imblearn_pipeline(LatentOverSampler(), LogisticRegression()).fit(x, y)
    plain = LogisticRegression().fit(x, y)
    assert (pipeline.predict(x) == "emu").sum() > (plain.predict(x) == "emu").sum()


def test_oversampler_refuses_with_one_sentence(data):
    x, y = data
    with pytest.raises(ValueError, match="Unknown sampler 'magic'"):
        LatentOverSampler("magic").fit_resample(x, y)
    with pytest.raises(TypeError, match="parse"):
        LatentOverSampler().fit_resample(csr_array(x), y)
    with pytest.raises(ValueError, match="sampling_strategy"):
        LatentOverSampler(sampling_strategy="most").fit_resample(x, y)

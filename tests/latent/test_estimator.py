import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from imblearn.utils.estimator_checks import parametrize_with_checks as imblearn_checks
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fgsynth.latent.estimator import LatentClassifier, LatentOverSampler
from fgsynth.latent.estimator_cv import LatentClassifierCV, stratified_folds
from fgsynth.latent.features.digits import (
    digits,
    digits_lt,
    long_tail_counts,
    long_tail_split,
    random_convolution_features,
)
from fgsynth.latent.probe.linear import average_accuracy, fit_probe, path
from fgsynth.latent.samplers.filters import NearestKept
from fgsynth.latent.samplers.gaussians import Gaussian, ShrunkMeans
from fgsynth.latent.samplers.registry import SAMPLERS
from fgsynth.latent.study.comparison import scaled
from fgsynth.utils.errors import UserError

NAMES = np.array(["cat", "dog", "emu"])
SMALL = dict(random_state=0, tolerance=0.3)


def fail_by_design(estimator):
    """scikit-learn's checks that do not hold, and why."""
    failed = {
        "check_sample_weight_equivalence_on_dense_data": "holds to the solver's tolerance and without a "
        "sampler, which counts rows: test_weights_count_rows_in_probe_and_prior"
    }
    return failed


@parametrize_with_checks(
    [
        *(LatentClassifier(sampler, **SMALL) for sampler in (None, *SAMPLERS)),
        LatentClassifier(NearestKept(Gaussian()), **SMALL),
        LatentClassifierCV(weight_decays=(0.01, 0.001), taus=(0.0, 1.0), cv=2, **SMALL),
    ],
    expected_failed_checks=fail_by_design,
)
def test_scikit_learns_conventions_hold(estimator, check):
    check(estimator)


@imblearn_checks(
    [LatentOverSampler(sampler, random_state=0) for sampler in ("smote", "class gaussian")],
    expected_failed_checks=lambda _: {"check_samplers_pandas_sparse": "features are dense"},
)
def test_imbalanced_learns_conventions_hold(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def data():
    """80, 30 and 6 features of cats, dogs and emus, float64."""
    rng = np.random.default_rng(0)
    index = np.repeat(np.arange(3), [80, 30, 6])
    return rng.normal(size=(116, 4)) + 1.2 * rng.normal(size=(3, 4))[index], NAMES[index]


def test_it_is_scaling_sampler_probe_and_logit_adjustment(data):
    x, y = data
    model = LatentClassifier(weight_decay=1e-2, tau=0.5, random_state=3).fit(x, y)
    assert model.n_synthetic_.tolist() == [0, 50, 74]
    centred = x - x.mean(0)
    size = np.sqrt(np.square(centred).sum(1).mean())
    e, label = torch.tensor(centred / size, dtype=torch.float32), torch.tensor(np.searchsorted(NAMES, y))
    real = label.bincount()
    seed = int(np.random.RandomState(3).randint(2**31 - 1))
    new, new_label = ShrunkMeans().fit(e, label).sample_all(torch.tensor([0, 50, 74]), seed)
    e, label = torch.cat([e, new]), torch.cat([label, new_label])
    probe = fit_probe(e, label, 3, weight_decay=1e-2, real=len(x)).adjusted(real, 0.5)
    torch.testing.assert_close(model.probe_.weight, probe.weight)
    torch.testing.assert_close(model.probe_.bias, probe.bias)
    np.testing.assert_allclose(model.decision_function(x), x @ model.coef_.T + model.intercept_, atol=1e-9)
    assert set(model.predict(x)) <= set(NAMES)
    np.testing.assert_allclose(model.predict_proba(x).sum(1), 1)
    np.testing.assert_allclose(model.predict_log_proba(x), np.log(model.predict_proba(x)))
    np.testing.assert_array_equal(NAMES[model.decision_function(x).argmax(1)], model.predict(x))


def test_scale_and_place_of_features_do_not_matter_and_may_be_left_alone(data):
    x, y = data
    first, second = (LatentClassifier(random_state=0).fit(z, y) for z in (x, 1e-6 * x + 3))
    np.testing.assert_allclose(first.predict_proba(x), second.predict_proba(1e-6 * x + 3), atol=1e-3)
    np.testing.assert_allclose(second.coef_, 1e6 * first.coef_, rtol=1e-2)
    raw = LatentClassifier(random_state=0, scale_features=False).fit(1e-6 * x, y)
    assert (raw.scale_, raw.center_.tolist()) == (1.0, [0.0] * 4)
    assert np.abs(raw.coef_).max() < 1e-2 * np.abs(second.coef_).max()
    with pytest.raises(UserError, match="too large to be squared"):
        LatentClassifier().fit(1e300 * x, y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_double_features_are_not_rounded_and_synthetic_ones_have_the_type_given(data, dtype):
    x, y = data[0].astype(dtype), data[1]
    model = LatentClassifier(random_state=0).fit(x + 1e6, y)
    for found in (model.predict_proba(x), model.predict_log_proba(x), model.decision_function(x)):
        assert found.dtype == np.float64
    if dtype == np.float64:
        there = LatentClassifier(random_state=0).fit(x, y).predict_proba(x)
        np.testing.assert_allclose(model.predict_proba(x + 1e6), there, atol=1e-2)
    assert LatentOverSampler().fit_resample(x, y)[0].dtype == dtype


def test_weights_count_rows_in_probe_and_prior(data):
    x, y = data
    often = np.arange(116) % 3
    weighted = LatentClassifier(None, tolerance=1e-6).fit(x, y, sample_weight=5 * often)
    repeated = LatentClassifier(None, tolerance=1e-6).fit(np.repeat(x, often, 0), np.repeat(y, often))
    np.testing.assert_allclose(weighted.predict_proba(x), repeated.predict_proba(x), atol=1e-3)
    lifted = LatentClassifier(None, tau=0.0, class_weight={"emu": 20}).fit(x, y)
    plain = LatentClassifier(None, tau=0.0).fit(x, y)
    assert (lifted.predict(x) == "emu").sum() > (plain.predict(x) == "emu").sum()


def test_labels_may_be_any_and_renaming_them_changes_nothing(data):
    x, y = data
    index = np.searchsorted(NAMES, y)
    by_name = LatentClassifier(random_state=0).fit(x, y)
    by_number = LatentClassifier(random_state=0).fit(x, np.array([-7, 2, 100])[index])
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
    options = dict(weight_decay=1e-2, scale_features=False, tolerance=1e-4)
    plain = LatentClassifier(None, tau=0.0, **options).fit(x, y)
    theirs = LogisticRegression(C=1 / (2 * 116 * 1e-2), tol=1e-9, max_iter=1000).fit(x, y)
    np.testing.assert_allclose(plain.predict_proba(x), theirs.predict_proba(x), atol=1e-3)
    np.testing.assert_allclose(plain.coef_, theirs.coef_, atol=5e-3)
    balanced = LatentClassifier(None, **options).fit(x, y)
    e, label = torch.tensor(x, dtype=torch.float32), torch.tensor(np.searchsorted(NAMES, y))
    probe = fit_probe(e, label, 3, weight_decay=1e-2, tolerance=1e-4).adjusted(label.bincount(), 1.0)
    np.testing.assert_allclose(balanced.predict_proba(x), probe.logits(e).softmax(1), atol=2e-3)
    assert (balanced.predict(x) == "emu").sum() > (plain.predict(x) == "emu").sum()
    assert plain.n_synthetic_.tolist() == [0, 0, 0]


def test_two_classes_have_one_row_of_coefficients(data):
    x, y = data[0][data[1] != "dog"], data[1][data[1] != "dog"]
    model = LatentClassifier(random_state=0).fit(x, y)
    assert (model.coef_.shape, model.intercept_.shape) == ((1, 4), (1,))
    np.testing.assert_allclose(model.decision_function(x), (x @ model.coef_.T + model.intercept_)[:, 0])


def test_tau_moves_predictions_to_rare_classes(data):
    x, y = data
    rare = [(LatentClassifier(tau=t, random_state=0).fit(x, y).predict(x) == "emu").sum() for t in (0, 1, 3)]
    assert rare[0] < rare[1] < rare[2]


def test_as_it_comes_tau_is_half_where_classes_do_not_overlap_and_none_where_they_do(data):
    x, y = data
    apart, same = (
        x + 50 * np.eye(3, 4)[np.searchsorted(NAMES, y)],
        np.random.default_rng(0).normal(size=x.shape),
    )
    tau = [LatentClassifier(random_state=0).fit(z, y).tau_ for z in (apart, x, same)]
    assert 0.45 < tau[0] <= 0.5
    assert tau[0] > tau[1] >= tau[2] == 0
    assert LatentClassifier(None).fit(x, y).tau_ == 1


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_of_the_family_serves(data, name):
    x, y = data
    model = LatentClassifier(sampler=name).fit(x, y)
    assert model.score(x, y) > 0.5
    assert (model.n_synthetic_[1:] > 0).all()


def test_a_sampler_may_be_given_and_stays_as_it_was(data):
    sampler = Gaussian(strength=5.0)
    model = LatentClassifier(sampler=sampler, random_state=0).fit(*data)
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
    grid = {"sampler__strength": [0.0, np.inf]}
    search = GridSearchCV(LatentClassifier(Gaussian(), random_state=0), grid, cv=2).fit(x, y)
    scores = search.cv_results_["mean_test_score"]
    assert search.best_params_["sampler__strength"] == grid["sampler__strength"][scores.argmax()]


def test_it_warns_where_it_did_not_converge(data):
    with pytest.warns(ConvergenceWarning, match="did not converge in 1 iterations: raise iterations"):
        LatentClassifier(iterations=1, tolerance=1e-9).fit(*data)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(sampler="magic"), dict(sampler=3), dict(tau=np.nan), dict(tau=np.inf),
        dict(tau="all"), dict(weight_decay="a"), dict(weight_decay=-1e-3), dict(weight_decay=np.nan),
        dict(tolerance=-1), dict(tolerance=np.nan), dict(iterations=0),
        dict(iterations=2.5), dict(scale_features="yes"), dict(sampling_strategy=np.nan),
        dict(class_weight="all"), dict(random_state="seed"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_parameters_are_both_kinds_of_error(data, wrong):
    name = next(iter(wrong))
    with pytest.raises(UserError, match=f"The '{name}' parameter of LatentClassifier must be") as caught:
        LatentClassifier(**wrong).fit(*data)
    assert isinstance(caught.value, ValueError)
    if name in ("sampler", "sampling_strategy", "random_state"):
        with pytest.raises(UserError, match=f"The '{name}' parameter of LatentOverSampler must be"):
            LatentOverSampler(**wrong).fit_resample(*data)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"emu": -1}, "class emu is -1"), ({"emu": np.nan}, "class emu is nan"),
        ({"emu": np.inf}, "class emu is inf"), ({"emu": "2"}, "class emu is 2: give a number"),
        ({"emu": 0}, "class emu is 0: give a number above 0"),
        ({"yeti": 2}, "names yeti, of which there is no row"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_weight_of_a_class_is_refused_by_its_name(data, wrong, said):
    with pytest.raises(UserError, match=said):
        LatentClassifier(class_weight=wrong, random_state=0).fit(*data)


@pytest.mark.parametrize("model", [LatentClassifier, LatentOverSampler])
def test_more_than_the_memory_holds_is_refused_before_it_is_drawn(data, model):
    x, y = data
    wanted = dict.fromkeys(NAMES.tolist(), 10**12)
    fit = getattr(model(sampling_strategy=wanted), "fit" if model is LatentClassifier else "fit_resample")
    with pytest.raises(UserError, match=r"synthetic features, [0-9,]+ GiB where this machine has"):
        fit(x, y)


def test_a_tau_that_is_not_a_number_cannot_be_chosen(data):
    with pytest.raises(UserError, match="'taus' of LatentClassifierCV hold 'auto': give numbers"):
        LatentClassifierCV(taus=(0.0, "auto")).fit(*data)


def test_parameters_of_a_sampler_are_validated_with_it(data):
    for model in (LatentClassifier, LatentOverSampler):
        with pytest.raises(ValueError, match="The 'strength' parameter of Gaussian must be"):
            getattr(model(Gaussian(-1)), "fit_resample" if model is LatentOverSampler else "fit")(*data)


@pytest.mark.parametrize("labels", [["cat", "dog", "owl"], [-1, 0, 5], [2.0, 7.0, 9.0]])
@pytest.mark.parametrize("sampler", ["class gaussian", "kernel density", "gaussian mixture", Gaussian(0)])
def test_a_class_is_called_by_its_own_label(labels, sampler):
    counts = [1, 3, 4] if isinstance(sampler, Gaussian) else [1, 1, 1]
    y = np.repeat(labels, counts)
    x = np.random.default_rng(0).normal(size=(len(y), 3))
    for fit in (LatentClassifier(sampler).fit, LatentOverSampler(sampler).fit_resample):
        with pytest.raises(ValueError, match=f"^Class {y[0]} has 1 feature"):
            fit(x, y)


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
    with pytest.raises(TypeError, match="parse"):
        LatentOverSampler().fit_resample(csr_array(x), y)
    with pytest.raises(ValueError, match="sampling_strategy"):
        LatentOverSampler(sampling_strategy="most").fit_resample(x, y)


def test_whole_numbers_are_filled_around_their_mean():
    x = np.repeat([[0, 1], [1, 0]], 30, 0)
    y = np.repeat([0, 1, 0, 1], [25, 5, 25, 5])
    e, label = LatentOverSampler(random_state=0).fit_resample(x, y)
    np.testing.assert_array_equal(e[:60], x)
    np.testing.assert_allclose(e[60:].mean(0), [0.5, 0.5], atol=0.25)
    assert label[60:].tolist() == [1] * 40
    assert (e[60:] % 1 != 0).any()


def test_a_frame_of_mixed_columns_is_filled_as_its_array(data):
    x, y = data
    frame = pd.DataFrame(x[:, :4], columns=list("abcd"))
    frame["b"], frame["c"], frame["d"] = (
        frame["b"].round().astype("Int64"),
        frame["c"].round().astype(int),
        frame["d"] > 0,
    )
    made, label = LatentOverSampler(random_state=0).fit_resample(frame, y)
    array, same = LatentOverSampler(random_state=0).fit_resample(frame.to_numpy(np.float64), y)
    np.testing.assert_array_equal(made.to_numpy(), array)
    np.testing.assert_array_equal(label, same)
    assert list(made.columns) == list("abcd")
    assert frame["d"].dtype == bool


def test_the_cross_validated_classifier_is_the_classifier_with_what_it_chose(data):
    x, y = data
    model = LatentClassifierCV((None, Gaussian()), cv=3, random_state=4).fit(x, y)
    alone = LatentClassifier(
        model.sampler_, weight_decay=model.weight_decay_, tau=model.tau_, random_state=4
    ).fit(x, y)
    np.testing.assert_array_equal(model.predict_proba(x), alone.predict_proba(x))
    assert model.scores_.shape == (2, 4, 3)
    best = np.unravel_index(model.scores_.argmax(), model.scores_.shape)
    assert model.sampler_ is model.samplers[best[0]]
    assert (model.weight_decay_, model.tau_) == (model.weight_decays[best[1]], model.taus[best[2]])
    again = LatentClassifierCV((None, Gaussian()), cv=3, random_state=4).fit(x, y)
    np.testing.assert_array_equal(again.scores_, model.scores_)


def test_scores_are_mean_class_accuracies_of_held_out_rows(data):
    x, y = data
    model = LatentClassifierCV((None,), weight_decays=(1e-2,), taus=(1.0,), cv=4, random_state=0).fit(x, y)
    label = np.searchsorted(NAMES, y)
    fold = stratified_folds(torch.tensor(label), 4, int(np.random.RandomState(0).randint(2**31 - 1)))
    scaled, found = (x - model.center_) / model.scale_, np.empty(116, dtype=y.dtype)
    for f in range(4):
        part = LatentClassifier(None, weight_decay=1e-2, scale_features=False).fit(
            scaled[fold != f], y[fold != f]
        )
        found[fold == f] = part.predict(scaled[fold == f])
    expected = 100 * np.mean([(found[y == name] == name).mean() for name in NAMES])
    assert model.scores_.item() == pytest.approx(expected)


def test_folds_hold_every_row_of_two_or_more_once_and_leave_each_class_something():
    label = torch.arange(5).repeat_interleave(torch.tensor([1, 2, 3, 11, 20]))
    fold = stratified_folds(label, 5, 0)
    assert fold[0] == -1
    assert (fold[1:] >= 0).all()
    sizes = np.bincount(fold[1:])
    assert sizes.max() - sizes.min() <= 1
    for f in range(5):
        assert set(label[fold != f].tolist()) == {0, 1, 2, 3, 4}


def test_a_sampler_that_cannot_be_fitted_in_a_fold_is_left_out_and_said(data):
    x, y = data[0][[0, 1, 80, 81, 110, 111]], data[1][[0, 1, 80, 81, 110, 111]]
    with pytest.warns(UserWarning, match="Sampler kernel density is left out: Class 0 has 1 feature"):
        model = LatentClassifierCV((None, "kernel density"), cv=2, random_state=0).fit(x, y)
    assert model.sampler_ is None
    assert np.isnan(model.scores_[1]).all()
    with pytest.raises(ValueError, match="Every class has one row"):
        LatentClassifierCV().fit(x[::2], y[::2])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (dict(samplers=("magic",)), "The 'sampler' parameter of LatentClassifier must be"),
        (dict(weight_decays=(0.1, -1)), "The 'weight_decay' parameter of LatentClassifier must be"),
        (dict(taus=(0.0, np.nan)), "The 'tau' parameter of LatentClassifier must be"),
        (dict(taus=()), "Give at least one sampler"),
        (dict(cv=1), "The 'cv' parameter of LatentClassifierCV must be"),
    ],
)
def test_bad_choices_are_refused(data, wrong, sentence):
    with pytest.raises(UserError, match=sentence):
        LatentClassifierCV(**wrong).fit(*data)


def test_as_it_comes_it_is_no_worse_than_the_best_probe_without_synthesis():
    """Mean class accuracy on long-tailed digits, over draws: half a point behind the best setting at most."""
    found = []
    for seed in range(3):
        (x, y), (test, test_label) = draw_of_digits(seed)
        probes = path(x, y, 10, [1e-2, 3e-3, 1e-3])
        fitted = {
            f"{probe.weight_decay}, {tau}": probe.adjusted(y.bincount(), tau).predict(test)
            for probe in probes
            for tau in (0.5, 1.0, 1.5)
        }
        fitted["default"] = torch.tensor(
            LatentClassifier(random_state=seed).fit(x.numpy(), y.numpy()).predict(test.numpy())
        )
        found.append({name: average_accuracy(predicted, test_label) for name, predicted in fitted.items()})
    mean = pd.DataFrame(found).mean()
    assert mean.pop("default") >= mean.max() - 0.5


def draw_of_digits(seed):
    """Training and test features of one draw."""
    images, label = digits()
    split = long_tail_split(label.numpy(), long_tail_counts(10, 134, 5), 10, 30, seed)
    data = scaled(digits_lt(random_convolution_features(images, 32), label, split))
    return data.part("train"), data.part("test")

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fgsynth.guidance.criteria import Hardness, entropy, loss
from fgsynth.guidance.feedback import Guidance
from fgsynth.guidance.samplers import ddim
from fgsynth.guidance.schedule import Schedule, model_function
from fgsynth.latent.covariance import pooled
from fgsynth.latent.probe.linear import fit_probe
from fgsynth.latent.samplers.denoiser import contraction, residuals, scheduler
from fgsynth.latent.samplers.diffusion import FeatureDiffusion, Feedback, feature_classifier
from fgsynth.latent.shrinkage import Whitening
from fgsynth.utils.errors import UserError

COUNTS = torch.tensor([60, 25, 4, 1])
QUICK = dict(updates=30, width=16, n_steps=4, components=4)


def data(seed=0, counts=COUNTS, k=6):
    """Classes around different means with one covariance that is not round."""
    g = torch.Generator().manual_seed(seed)
    label = torch.arange(len(counts)).repeat_interleave(counts)
    turn = torch.randn(k, k, generator=g)
    mean = 3 * torch.randn(len(counts), k, generator=g)
    return mean[label] + torch.randn(len(label), k, generator=g) @ turn / k**0.5, label


@pytest.fixture(scope="module")
def fitted():
    return FeatureDiffusion(**QUICK).fit(*data())


@pytest.fixture(scope="module")
def probe():
    features, label = data()
    return fit_probe(features, label, len(COUNTS), weight_decay=1e-2).adjusted(COUNTS, 1.0)


def feedback(probe, criterion=entropy, scale=0.1, **options):
    return Feedback(criterion, feature_classifier(probe.logits), Guidance(scale, every=1, **options))


@pytest.fixture(scope="module")
def guided(fitted, probe):
    return fitted.guided_by(feedback(probe))


@pytest.fixture(params=["fitted", "guided"])
def sampler(request):
    return request.getfixturevalue(request.param)


def test_features_have_the_shape_and_type_of_the_real_ones(sampler):
    x, y = sampler.sample_all(torch.tensor([3, 0, 260, 2]), 0)
    assert x.shape == (265, 6)
    assert x.dtype == torch.float32
    assert x.isfinite().all()
    assert y.tolist() == [0] * 3 + [2] * 260 + [3] * 2
    assert sampler.sample(0, 0, 0).shape == (0, 6)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 300), st.integers(1, 300))
def test_a_row_is_the_same_in_any_range(fitted, start, n):
    assert torch.equal(fitted.sample(1, n, 5, start=start), fitted.sample(1, start + n, 5)[start:])


def test_a_row_is_the_same_whatever_the_classes(sampler):
    counts = torch.tensor([40, 0, 270, 9])
    together = sampler.sample_all(counts, 7)
    assert torch.equal(sampler.sample(2, 270, 7), together[0][40:310])


def test_seeds_classes_and_chunks_differ(fitted):
    x = fitted.sample(0, 512, 1)
    assert not torch.equal(x[:256], x[256:])
    assert not torch.equal(x, fitted.sample(0, 512, 2))
    assert not torch.equal(x, fitted.sample(1, 512, 1))


def test_fitting_again_forgets_and_gives_the_same_as_a_first_fit():
    other = data(1, torch.tensor([20, 30]))
    twice = FeatureDiffusion(**QUICK).fit(*data()).fit(*other)
    assert torch.equal(twice.sample(0, 9, 0), FeatureDiffusion(**QUICK).fit(*other).sample(0, 9, 0))
    with pytest.raises(UserError, match="Class 2 was not fitted"):
        twice.sample(2, 1, 0)


def test_the_seed_of_the_training_changes_the_network():
    x = [FeatureDiffusion(**QUICK, seed=seed).fit(*data()).sample(0, 9, 0) for seed in (0, 1)]
    assert not torch.equal(*x)


def test_classes_that_were_not_fitted_are_refused(fitted):
    with pytest.raises(UserError, match="Class 4 was not fitted"):
        fitted.sample(4, 1, 0)
    with pytest.raises(UserError, match="Class 0 was not fitted"):
        FeatureDiffusion().sample_all(torch.tensor([1]), 0)


def test_untrained_it_is_the_gaussian_of_the_pooled_covariance():
    features, label = data(counts=torch.tensor([150, 100]))
    sampler = FeatureDiffusion(updates=0, components=3).fit(features, label)
    x = sampler.sample(0, 20_000, 0).double()
    centred = torch.cat([features[label == y] - features[label == y].mean(0) for y in (0, 1)]).double()
    covariance = centred.T @ centred / 248
    torch.testing.assert_close(x.mean(0), features[:150].double().mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(torch.cov(x.T), covariance, atol=0.06 * float(covariance.trace()), rtol=0)
    assert float(torch.cov(x.T).trace()) == pytest.approx(float(covariance.trace()), rel=0.03)


@pytest.mark.parametrize("n_steps", [3, 30])
def test_ddim_contracts_normal_noise_by_exactly_what_is_made_up_for(n_steps):
    schedule = Schedule.from_scheduler(scheduler(), n_steps)
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    exact = model_function(lambda z, t: torch.zeros_like(z), schedule, "v_prediction")
    torch.testing.assert_close(ddim(exact, z, schedule), contraction(schedule) * z)
    assert contraction(schedule) < 1


def test_training_learns_two_modes_and_keeps_the_means():
    """Class 0 has two modes at -2 and 2 of the first axis, class 1 is round."""
    g = torch.Generator().manual_seed(0)
    features, label = torch.randn(800, 3, generator=g) * 0.3, torch.arange(800) % 2
    features[:, 0] += torch.where(label == 0, 4.0 * (torch.rand(800, generator=g) < 0.5) - 2, 0)
    features[:, 1] += 5.0 * label
    settings = dict(width=48, components=3, n_steps=15)
    between = {}
    for updates in (0, 400):
        sampler = FeatureDiffusion(updates, **settings).fit(features, label)
        x = [sampler.sample(y, 1000, 0) for y in (0, 1)]
        between[updates] = float((x[0][:, 0].abs() < 1).float().mean())
        for y in (0, 1):
            torch.testing.assert_close(x[y].mean(0), features[label == y].mean(0), atol=0.25, rtol=0)
    assert between[0] > 0.3
    assert between[400] < 0.2


def test_a_class_of_one_row_borrows_how_the_others_vary(fitted):
    x = fitted.sample(3, 2000, 0)
    features, _ = data()
    assert x.std(0).min() > 0.5 * features[:60].std(0).min()
    assert (x.mean(0) - features[-1]).norm() < (features[:60].mean(0) - features[-1]).norm() / 2


def test_more_dimensions_than_rows_and_fewer_than_components():
    for k in (200, 2):
        x = FeatureDiffusion(**QUICK | dict(components=8)).fit(*data(k=k)).sample(2, 20, 0)
        assert x.shape == (20, k)
        assert x.isfinite().all()


def test_pairs_tell_the_whole_variance():
    """Around their own mean, rows of pairs vary half as much as they do around the true mean."""
    x = 3 * torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    pairs = dict(enumerate(x.split(2)))
    assert float(Whitening.fit(pairs).back.square().sum()) == pytest.approx(18, rel=0.1)
    residual, label = residuals(pairs)
    assert float(residual.square().sum(1).mean()) == pytest.approx(18, rel=0.1)
    assert torch.equal(label, torch.arange(1000).repeat_interleave(2))


def test_a_row_varies_by_what_is_not_known_of_its_mean_too():
    """One row leaves its class's mean as uncertain as the row itself: twice the variance."""
    features, label = data(counts=torch.tensor([300, 300, 1]))
    features += 100 * label[:, None]
    sampler = FeatureDiffusion(updates=0).fit(features, label)
    variance = [float(sampler.sample(y, 4000, 0).var(0).sum()) for y in (0, 2)]
    assert variance[1] / variance[0] == pytest.approx(2, rel=0.1)


def test_scale_zero_is_the_unguided_sampler(fitted, probe):
    off = fitted.guided_by(feedback(probe, scale=0.0))
    assert torch.equal(off.sample(1, 300, 0), fitted.sample(1, 300, 0))


def test_guidance_by_argument_is_guidance_afterwards(guided, probe):
    again = FeatureDiffusion(**QUICK, feedback=feedback(probe)).fit(*data())
    assert torch.equal(again.sample(0, 9, 0), guided.sample(0, 9, 0))


@pytest.mark.parametrize("through_network", [True, False])
@pytest.mark.parametrize("name", ["entropy", "loss", "hardness"])
def test_the_criterion_rises_with_the_scale(fitted, probe, name, through_network):
    features, label = data()
    many = label < 3
    criteria = {"entropy": entropy, "loss": loss, "hardness": Hardness.fit(features[many], label[many], 3)}
    y, means = torch.full((256,), 1), []
    for scale in (0.0, 0.03, 0.1):
        pushed = fitted.guided_by(feedback(probe, criteria[name], scale, through_network=through_network))
        x = pushed.sample(1, 256, 0)
        means.append(float(criteria[name](probe.logits(x), x, y).mean()))
    assert means == sorted(means)
    assert means[2] > means[0] * 1.01


def test_guidance_follows_the_finite_difference_gradient_in_feature_space(probe):
    """One raw step from the last level of noise moves a feature by noise^2 w Sigma grad C."""
    features, label = data()
    plain = FeatureDiffusion(updates=0, n_steps=1).fit(features, label)
    scale = 1e4
    pushed = plain.guided_by(feedback(probe, scale=scale, scaling="raw"))
    x, moved = plain.sample(0, 8, 3).double(), pushed.sample(0, 8, 3).double()
    weight, bias = probe.weight.double(), probe.bias.double()
    gradient, h = torch.zeros_like(x), 1e-5
    for i in range(x.shape[1]):
        up, down = (
            entropy((x + d) @ weight + bias, x, label) for d in (h * torch.eye(6)[i], -h * torch.eye(6)[i])
        )
        gradient[:, i] = (up - down) / (2 * h)
    tied = pooled({y: features[label == y] for y in range(3)})
    turn = tied.turn.double()
    sigma = turn.T @ (tied.variance[:, None] * turn) * 89 / 86
    schedule = Schedule.from_scheduler(scheduler(), 1)
    step = float(schedule.noise(schedule.steps[0][0])) ** 2 * scale * gradient @ sigma
    assert step.norm() > 0.05
    torch.testing.assert_close(moved - x, step, rtol=0.03, atol=float(step.abs().max()) * 0.02)


def test_a_classifier_of_fewer_classes_is_refused(fitted, probe):
    two = feature_classifier(lambda x: probe.logits(x)[:, :2])
    sampler = fitted.guided_by(Feedback(entropy, two))
    assert sampler.sample(1, 2, 0).isfinite().all()
    with pytest.raises(UserError, match="classifier has 2 classes, there is no class 2 among them"):
        sampler.sample(2, 2, 0)


def test_a_gradient_that_is_not_finite_is_one_sentence(fitted, probe):
    broken = feature_classifier(lambda x: probe.logits(x) * torch.nan)
    with pytest.raises(UserError, match="gradient is not finite at a feature of class 1"):
        fitted.guided_by(Feedback(entropy, broken)).sample(1, 2, 0)


def test_a_loss_that_is_not_finite_is_one_sentence():
    with pytest.raises(UserError, match=r"The loss is \w+ at update \d+: lower the rate \(1e\+30 now\)"):
        FeatureDiffusion(**QUICK, rate=1e30).fit(*data())


@pytest.mark.parametrize(
    ("features", "label", "sentence"),
    [
        (torch.randn(2, 3), [0, 1], "No class has two features"),
        (torch.ones(4, 3), [0, 0, 1, 1], "features of every class are all equal"),
        (torch.full((2, 3), torch.nan), [0, 0], r"Row 0 of the features \(class 0\) is not finite"),
        (torch.randn(3, 3), [0, 0], "3 rows of features but labels of the shape"),
    ],
)
def test_features_that_cannot_be_fitted_are_refused(features, label, sentence):
    with pytest.raises(UserError, match=sentence):
        FeatureDiffusion(**QUICK).fit(features, torch.tensor(label))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(updates=-1), "'updates' parameter of FeatureDiffusion must be .* Got -1 instead"),
        (dict(width=0), "'width' .* Got 0"),
        (dict(components=0), "'components' .* Got 0"),
        (dict(strength=-1.0), "'strength' .* Got -1.0"),
        (dict(strength=math.nan), "'strength' .* Got nan"),
        (dict(n_steps=0), "'n_steps' .* Got 0"),
        (dict(feedback="entropy"), "'feedback' parameter .* Got 'entropy'"),
    ],
)
def test_settings_out_of_range_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        FeatureDiffusion(**options).fit(*data())

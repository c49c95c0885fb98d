import pytest
import torch
from diffusers import DDIMScheduler

from fgsynth.guidance.criteria import CRITERIA, combined, entropy, loss
from fgsynth.guidance.feedback import Guidance, guide
from fgsynth.guidance.samplers import ddim
from fgsynth.guidance.schedule import FLOW, Flow, Schedule, model_function, x0_from_eps
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import noise

LABEL = torch.tensor([0, 1, 2, 3, 0])
T = 501


@pytest.fixture
def schedule():
    return Schedule.from_scheduler(DDIMScheduler(clip_sample=False, steps_offset=1), 10)


def z0():
    return noise(range(5), (3,)).double()


def decode(z):
    return torch.tanh(z) * 2


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("through_network", [True, False])
@pytest.mark.parametrize("criterion", list(CRITERIA.values()))
def test_raw_guidance_is_equation_3_by_finite_differences(
    schedule, network, classifier, prediction_type, through_network, criterion
):
    predict, z, w = model_function(network, schedule, prediction_type), z0(), 0.7
    guidance = Guidance(scale=w, scaling="raw", every=1, through_network=through_network)
    x0, eps = guide(predict, classifier, criterion, LABEL, schedule, guidance, decode)(z, T)
    frozen_eps = predict(z, T)[1]
    signal, noise = schedule.signal(T), schedule.noise(T)

    def value(z):
        clean = predict(z, T)[0] if through_network else x0_from_eps(z, frozen_eps, signal, noise)
        return criterion(*classifier(decode(clean)), LABEL)

    numeric = slopes(value, z)
    torch.testing.assert_close(eps, frozen_eps - noise * w * numeric, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(signal * x0 + noise * eps, z, rtol=1e-5, atol=1e-6)


def slopes(value, z, h=1e-5):
    steps = h * torch.eye(3, dtype=torch.double)
    return torch.stack([(value(z + step) - value(z - step)) / (2 * h) for step in steps], 1)


@pytest.mark.parametrize("through_network", [True, False])
@pytest.mark.parametrize("scaling", ["raw", "relative"])
@pytest.mark.parametrize("t", [1000.0, 640.5])
def test_guidance_of_a_flow_by_finite_differences(network, classifier, through_network, scaling, t):
    if scaling == "raw" and t == 1000:
        t = 990.0  # without signal there is no score
    flow = Flow(((t, 300.25), (300.25, 0.0)))
    predict, z, sigma, w = model_function(network, flow, FLOW), z0(), t / 1000, 0.7
    velocity = network(z, t)

    def value(z):
        clean = predict(z, t)[0] if through_network else z - sigma * velocity
        return entropy(*classifier(decode(clean)), LABEL)

    numeric = slopes(value, z)
    guidance = Guidance(w, scaling, every=1, through_network=through_network)
    x0, eps = guide(predict, classifier, entropy, LABEL, flow, guidance, decode)(z, t)
    if scaling == "raw":
        wanted = z + (1 - sigma) * velocity - sigma * w * numeric
        torch.testing.assert_close(eps, wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close((1 - sigma) * x0 + sigma * eps, z, rtol=1e-5, atol=1e-6)
    else:
        push = w * z.norm(dim=1, keepdim=True) * numeric / numeric.norm(dim=1, keepdim=True)
        torch.testing.assert_close(x0, z - sigma * velocity + push, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(eps - x0, velocity, rtol=1e-5, atol=1e-6)


def test_relative_guidance_moves_the_latent_by_w_of_its_norm(schedule, network, classifier):
    predict, z, w = model_function(network, schedule, "v_prediction"), z0(), 0.03
    guidance = Guidance(scale=w, every=1)
    x0, eps = guide(predict, classifier, entropy, LABEL, schedule, guidance)(z, T)
    moved = schedule.signal(T) * x0 + schedule.noise(T) * eps - z
    torch.testing.assert_close(moved.norm(dim=1), w * z.norm(dim=1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(eps, predict(z, T)[1])
    raw = guide(predict, classifier, entropy, LABEL, schedule, Guidance(1.0, "raw", 1))(z, T)
    direction = predict(z, T)[1] - raw[1]
    torch.testing.assert_close(
        torch.cosine_similarity(moved, direction), torch.ones(5).double(), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("scaling", ["relative", "raw"])
@pytest.mark.parametrize("through_network", [True, False])
@pytest.mark.parametrize("criterion", [entropy, loss])
def test_the_criterion_of_every_sample_rises(schedule, criterion, scaling, through_network):
    # The exact denoiser of standard normal data, and a linear classifier.
    predict = model_function(lambda z, t: schedule.noise(t) * z, schedule, "epsilon")
    w = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.double)

    def final(scale):
        guidance = Guidance(scale, scaling, 2, through_network=through_network)
        guided = guide(predict, lambda x: (x @ w, x), criterion, LABEL, schedule, guidance)
        z = ddim(guided, z0(), schedule)
        return criterion(z @ w, z, LABEL)

    assert (final(0.02) > final(0.0)).all()


def test_a_half_precision_latent_stays_half(schedule):
    predict = model_function(lambda z, t: z / 2, schedule, "epsilon")
    guided = guide(predict, lambda x: (x.float(), x), entropy, LABEL, schedule, Guidance(0.1, every=1))
    x0, eps = guided(z0().half(), T)
    assert x0.dtype == eps.dtype == torch.half


def test_scale_zero_is_no_guidance_and_never_asks_the_classifier(schedule, network):
    predict = model_function(network, schedule, "epsilon")

    def no_classifier(x):
        raise AssertionError("asked")

    guided = guide(predict, no_classifier, entropy, LABEL, schedule, Guidance(scale=0))
    assert torch.equal(ddim(guided, z0(), schedule), ddim(predict, z0(), schedule))
    assert guided.values == []


@pytest.mark.parametrize("scaling", ["relative", "raw"])
def test_a_sample_does_not_depend_on_its_batch(schedule, network, classifier, scaling):
    predict = model_function(network, schedule, "v_prediction")

    def run(rows):
        guided = guide(predict, classifier, entropy, LABEL[rows], schedule, Guidance(0.1, scaling, 2))
        return ddim(guided, z0()[rows], schedule)

    together = run([0, 1, 2, 3, 4])
    for i in range(5):
        torch.testing.assert_close(run([i])[0], together[i])
    torch.testing.assert_close(run([4, 2]), together[[4, 2]])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"every": 5}, [0, 5]),
        ({"every": 3, "start": 1}, [1, 4, 7]),
        ({"every": 2, "start": 2, "stop": 7}, [2, 4, 6]),
        ({"every": 100}, [0]),
    ],
)
def test_guided_steps(schedule, network, classifier, settings, expected):
    asked = []

    def watching(x):
        asked.append(len(asked))
        return classifier(x)

    predict = model_function(network, schedule, "epsilon")
    guided = guide(predict, watching, entropy, LABEL, schedule, Guidance(0.1, **settings))
    steps = []
    z = z0()
    for i, (t, _) in enumerate(schedule.steps):
        before = len(asked)
        guided(z, t)
        steps += [i] * (len(asked) - before)
    assert steps == expected
    assert len(guided.values) == len(expected)
    assert guided.values[0].shape == (5,)


def test_non_finite_gradients_are_counted_and_do_not_spread(schedule, network, classifier):
    def broken(logits, embedding, label):
        return entropy(logits, embedding, label) * torch.where(label == 3, float("inf"), 1.0)

    predict = model_function(network, schedule, "epsilon")
    guided = guide(predict, classifier, broken, LABEL, schedule, Guidance(0.1, every=5))
    sane = guide(predict, classifier, entropy, LABEL, schedule, Guidance(0.1, every=5))
    x, reference = ddim(guided, z0(), schedule), ddim(sane, z0(), schedule)
    assert guided.non_finite.tolist() == [0, 0, 0, 2, 0]
    assert sane.non_finite.sum() == 0
    torch.testing.assert_close(x[[0, 1, 2, 4]], reference[[0, 1, 2, 4]])
    torch.testing.assert_close(x[3], ddim(predict, z0(), schedule)[3])


def test_nothing_that_leaves_guidance_carries_a_graph(schedule, classifier):
    weight = torch.ones(3, dtype=torch.double, requires_grad=True)
    predict = model_function(lambda z, t: z * weight, schedule, "epsilon")
    for through in (True, False):
        guided = guide(predict, classifier, entropy, LABEL, schedule, Guidance(0.1, through_network=through))
        z = ddim(guided, z0(), schedule)
        assert not z.requires_grad
        assert not guided.values[0].requires_grad


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"scale": -0.1}, "'scale' is -0.1: input should be greater than or equal to 0"),
        ({"scale": float("nan")}, "'scale' is nan: input should be a finite number"),
        ({"scaling": "relativ"}, "'relativ': input should be 'relative' or 'raw'"),
        ({"every": 0}, "'every' is 0"),
        ({"start": -1}, "'start' is -1"),
    ],
)
def test_bad_settings(settings, word):
    with pytest.raises(UserError, match=word):
        Guidance(**settings)


def test_reuse_pushes_by_the_last_gradient_in_between(schedule, network, classifier):
    predict, z = model_function(network, schedule, "epsilon"), z0()
    (first, _), (second, _) = schedule.steps[5:7]
    guidance = Guidance(start=5, every=5, reuse=True)
    reusing = guide(predict, classifier, entropy, LABEL, schedule, guidance, decode)
    _, _, gradient = reusing.gradient(z, first)
    reusing(z, first)
    x0, eps = reusing(z, second)
    plain, plain_eps = predict(z, second)
    push = (x0 - plain) * schedule.signal(second)
    wanted = 0.03 * z.norm(dim=1, keepdim=True) * gradient / gradient.norm(dim=1, keepdim=True)
    torch.testing.assert_close(push, wanted, rtol=1e-5, atol=1e-7)
    assert torch.equal(eps, plain_eps)
    assert len(reusing.values) == 2  # the one asked for above, and one of two steps


def test_reuse_ends_with_the_window(schedule, network, classifier):
    predict, z = model_function(network, schedule, "epsilon"), z0()
    guidance = Guidance(every=2, stop=3, reuse=True)
    guided = guide(predict, classifier, entropy, LABEL, schedule, guidance, decode)
    pushed = [not torch.equal(guided(z, t)[0], predict(z, t)[0]) for t, _ in schedule.steps]
    assert pushed == [True] * 3 + [False] * 7


def test_a_window_beyond_the_steps_is_refused(schedule, network, classifier):
    predict = model_function(network, schedule, "epsilon")
    with pytest.raises(UserError, match="Guidance from step 10 to None guides none of 10 steps"):
        guide(predict, classifier, entropy, LABEL, schedule, Guidance(start=10), decode)
    guide(predict, classifier, entropy, LABEL, schedule, Guidance(scale=0, start=10), decode)


@pytest.mark.parametrize("through_network", [True, False])
def test_one_by_one_is_the_same_gradient_with_one_sample_decoded_at_a_time(
    schedule, network, classifier, through_network
):
    # A criterion that knows samples by their place.
    criterion = combined([entropy, loss], range(5))
    predict, seen = model_function(network, schedule, "v_prediction"), []

    def decoded(z):
        seen.append(len(z))
        return decode(z)

    guidance = Guidance(through_network=through_network)
    models = [
        guide(predict, classifier, criterion, LABEL, schedule, guidance, decoded, one_by_one=one)
        for one in (False, True)
    ]
    (x0, eps, gradient), other = (model.gradient(z0(), T) for model in models)
    assert seen == [5, 1, 1, 1, 1, 1]
    assert gradient.abs().max() > 0
    for a, b in zip((x0, eps, gradient, models[0].values[0]), (*other, models[1].values[0]), strict=True):
        torch.testing.assert_close(a, b)

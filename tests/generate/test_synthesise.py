from copy import deepcopy

import pytest
import torch
from generate.test_generator import images
from tiny_unclip import save

from fgsynth.generate.dropout import Dropout
from fgsynth.generate.generator import Generator
from fgsynth.generate.synthesise import Feedback, Plan, synthesise
from fgsynth.guidance.criteria import CRITERIA, entropy, loss
from fgsynth.guidance.feedback import Guidance, guide
from fgsynth.models.networks import small
from fgsynth.utils.errors import UserError

SEEDS = [5, 6, 7]
LABEL = torch.tensor([0, 2, 1])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return Generator.load(save(tmp_path_factory.mktemp("unclip")), n_steps=6)


@pytest.fixture(scope="module")
def plan(tiny):
    return Plan(["apple", "car", "banana"], tiny.embed_image(images(3), SEEDS, Dropout(0.5)), LABEL, SEEDS)


@pytest.fixture(scope="module")
def classifier():
    return small(4, seed=3).eval()


def feedback(classifier, criteria=None, **guidance):
    return Feedback(classifier, criteria or {"entropy": entropy}, 4, Guidance(every=2, **guidance))


def test_scale_zero_is_the_unguided_sampler(tiny, plan, classifier):
    plain = synthesise(tiny, plan, 3.0)
    off = synthesise(tiny, plan, 3.0, feedback(classifier, scale=0.0))
    assert torch.equal(plain.images, off.images)
    assert plain.after.isnan().all()
    assert off.before.isnan().all()
    assert off.after.isfinite().all()


@pytest.mark.parametrize("through_network", [True, False])
@pytest.mark.parametrize("criterion", ["entropy", "loss"])
def test_the_criterion_rises(tiny, plan, classifier, criterion, through_network):
    criteria = {criterion: CRITERIA[criterion]}
    off = synthesise(tiny, plan, 3.0, feedback(classifier, criteria, scale=0.0))
    on = synthesise(
        tiny, plan, 3.0, feedback(classifier, criteria, scale=0.1, through_network=through_network)
    )
    assert (on.after > off.after).all()
    assert on.before.isfinite().all()
    assert (on.non_finite == 0).all()


@pytest.mark.parametrize("on", [False, True])
def test_an_image_does_not_depend_on_its_batch(tiny, plan, classifier, on):
    guided = feedback(classifier, {"entropy": entropy, "loss": loss}, scale=0.05) if on else None
    together = synthesise(tiny, plan, 3.0, guided)
    alone = synthesise(tiny, plan, 3.0, guided, batch=1)
    difference = (together.images.int() - alone.images.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.01
    torch.testing.assert_close(together.after, alone.after, equal_nan=True, rtol=1e-3, atol=1e-4)


def test_reuse_pushes_on_the_steps_in_between_without_further_gradients(tiny, plan, classifier):
    calls = []

    def counting(x):
        calls.append(len(x))
        return classifier(x)

    sometimes = synthesise(tiny, plan, 3.0, feedback(counting, scale=0.03))
    evaluations = len(calls)
    calls.clear()
    reused = synthesise(tiny, plan, 3.0, feedback(counting, scale=0.03, reuse=True))
    assert len(calls) == evaluations == 5  # the door, steps 0, 2, 4, the finished image
    assert reused.after.mean() > sometimes.after.mean() > sometimes.before.mean()


def test_non_finite_gradients_are_counted_and_the_image_is_the_unguided_one(tiny, plan, classifier):
    def broken(logits, embedding, label):
        return entropy(logits, embedding, label) * torch.where(label == 2, torch.nan, 1.0)

    plain = synthesise(tiny, plan, 3.0)
    out = synthesise(tiny, plan, 3.0, feedback(classifier, {"broken": broken}, scale=0.1))
    assert out.non_finite.tolist() == [0, 3, 0]
    assert torch.equal(out.images[1], plain.images[1])
    assert not torch.equal(out.images[0], plain.images[0])


def test_a_classifier_of_other_classes_is_refused(tiny, plan, classifier):
    with pytest.raises(UserError, match="The classifier has 4 classes, the benchmark 10"):
        synthesise(tiny, plan, 3.0, Feedback(classifier, {"entropy": entropy}, 10))


def test_a_batch_larger_than_memory_proposes_a_smaller_one(tiny, plan, monkeypatch):
    def full(z):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(tiny, "decode", full)
    with pytest.raises(UserError, match="A batch of 3 images does not fit into memory: set batch to 1"):
        synthesise(tiny, plan, 3.0)


def test_other_runtime_errors_are_not_disguised(tiny, plan, monkeypatch):
    def broken(z):
        raise RuntimeError("something else")

    monkeypatch.setattr(tiny, "decode", broken)
    with pytest.raises(RuntimeError, match="something else"):
        synthesise(tiny, plan, 3.0)


def test_an_uneven_plan_is_refused(tiny):
    with pytest.raises(UserError, match="2 prompts, 1 image conditions, 1 labels and 1 seeds"):
        Plan(["a", "b"], tiny.no_image(1), LABEL[:1], [1])


def test_an_empty_plan_is_refused(tiny):
    with pytest.raises(UserError, match="no entries"):
        synthesise(tiny, Plan([], tiny.no_image(0), LABEL[:0], []), 3.0)


def test_a_single_image_larger_than_memory(tiny, plan, monkeypatch):
    def full(z):
        raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")

    monkeypatch.setattr(tiny, "decode", full)
    with pytest.raises(UserError, match="One image does not fit into memory: take half precision"):
        synthesise(tiny, plan, 3.0, batch=1)


def test_an_image_that_is_not_finite_is_named_not_black(tiny, plan, monkeypatch):
    decode = tiny.decode
    monkeypatch.setattr(
        tiny, "decode", lambda z: decode(z) / torch.tensor([1.0, 0.0, 1.0])[:, None, None, None]
    )
    with pytest.raises(UserError, match="The image of seed 6 is not finite"):
        synthesise(tiny, plan, 3.0)


def test_the_exact_gradient_is_that_of_the_whole_pipe(tiny, plan, classifier):
    """Through classifier-free guidance, denoiser and decoder, by a central difference in float64."""
    precise, guide_network = deepcopy(tiny), deepcopy(classifier).double()
    precise.pipe.unet.double(), precise.pipe.vae.double()
    precise.embed_text([""]), precise._texts.update({k: v.double() for k, v in precise._texts.items()})
    text, image = precise.embed_text(plan.prompts).double(), plan.image.double()
    predict = precise.predict(text, image, 3.0)
    vae, t, z = precise.pipe.vae, tiny.schedule.steps[1][0], tiny.noise(SEEDS).double()

    def decode(latent):
        return vae.decode(latent / vae.config.scaling_factor, return_dict=False)[0]

    @torch.no_grad()
    def value(at):
        return entropy(*guide_network(decode(predict(at, t)[0])), LABEL)

    gradient = guide(predict, guide_network, entropy, LABEL, tiny.schedule, Guidance(), decode).gradient(
        z, t
    )[2]
    length = gradient.flatten(1).norm(dim=1)
    step = 1e-3 * gradient / length[:, None, None, None]
    torch.testing.assert_close((value(z + step) - value(z - step)) / 2e-3, length, rtol=0.01, atol=0)


def test_half_precision_keeps_a_gradient_that_it_cannot_hold(tmp_path_factory, plan):
    """A confident guide's gradient is below what 16 bits hold; per sample it goes through at unit size."""
    low = Generator.load(save(tmp_path_factory.mktemp("low")), n_steps=6, dtype=torch.bfloat16)
    image = low.embed_image(images(3), SEEDS, Dropout(0.5))
    predict = low.predict(low.embed_text(plan.prompts), image, 3.0)

    def faint(x):
        logits, embedding = small(4, seed=3).eval()(x)
        return 1e-20 * logits, embedding

    guided = guide(
        predict, faint, lambda logits, *_: logits[:, 0], LABEL, low.schedule, Guidance(), low.decode
    )
    gradient = guided.gradient(low.noise(SEEDS), low.schedule.steps[0][0])[2]
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    assert next(low.pipe.vae.parameters()).dtype == torch.float32
    made = synthesise(
        low, Plan(plan.prompts, image, LABEL, SEEDS), 3.0, feedback(small(4).eval(), scale=0.05)
    )
    assert made.images.float().std() > 1
    assert (made.non_finite == 0).all()

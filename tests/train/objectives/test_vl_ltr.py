import json
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from fgsynth.data.sources import Images
from fgsynth.models.networks import small
from fgsynth.pretrain.files import FOLDER
from fgsynth.train.objective import Batch, Moment
from fgsynth.train.objectives.registry import of_json, to_json
from fgsynth.train.objectives.vl_ltr import VLLTR, class_wise_contrast, distillation
from fgsynth.train.recipe import Recipe
from fgsynth.train.run_folder import load
from fgsynth.train.train import predict, train
from fgsynth.utils.errors import UserError

CLASSES = ("apple", "car", "fish")
METHOD = VLLTR(str(FOLDER), CLASSES, ("{}", "a photo of {}"))
RECIPE = Recipe(epochs=2, updates_per_epoch=2, batch=6, rate=1e-3, augment=(), objective=METHOD)
LABEL = torch.arange(3).repeat(4)


def images(seed=0):
    x = torch.randint(
        0, 256, (12, 32, 32, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )
    return Images(x, LABEL)


def batch(n=5):
    x = torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    return Batch(x, LABEL[:n])


def moment(progress):
    return Moment(int(10 * progress), 10, torch.tensor([4.0, 2.0, 1.0]), None, {}, lambda t: t, (0,))


@pytest.fixture
def network(root):
    return METHOD.wrap(small(3), 3, 0)


def test_contrast_by_hand():
    # Two images of classes 0 and 1; sentences of classes 0, 0 and 2.
    similarity = torch.tensor([[1.0, 2.0, 0.0], [0.5, 0.0, 1.0]])
    only_first = class_wise_contrast(similarity[:1], torch.tensor([0]), torch.tensor([0, 0, 2]))
    p = similarity[0].log_softmax(0)
    # Of one image every sentence has all the probability.
    torch.testing.assert_close(only_first, -(p[0] + p[1]) / 2)
    both = class_wise_contrast(similarity, torch.tensor([0, 2]), torch.tensor([0, 0, 2]))
    q = similarity.log_softmax(0)
    vision = -((p[0] + p[1]) / 2 + similarity[1].log_softmax(0)[2]) / 2
    torch.testing.assert_close(both, vision - (q[0, 0] + q[0, 1] + q[1, 2]) / 3)


def test_contrast_leaves_out_sentences_of_classes_that_are_not_there():
    similarity = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = class_wise_contrast(similarity, torch.tensor([0, 0]), torch.tensor([0, 1, 1]))
    assert loss.isfinite()
    (gradient,) = torch.autograd.grad(loss, [similarity])
    # Going down the loss, images come nearer to their class's sentence and go from the others.
    assert gradient[:, 0].sum() < 0
    assert (gradient[:, 1:] > 0).all()


def test_distillation_is_least_at_the_teachers_similarities():
    teacher = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    ours = teacher.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(distillation(ours, teacher), [ours])
    torch.testing.assert_close(gradient, torch.zeros(4, 5), rtol=0, atol=1e-6)
    moved = teacher + torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    assert distillation(moved, teacher) > distillation(teacher, teacher)


def test_before_training_the_teacher_agrees(network):
    network.train()
    _, pairs = network(batch().x)
    assert pairs.shape == (5, 3, 2, 2)
    torch.testing.assert_close(pairs[..., 0], pairs[..., 1])


@torch.no_grad()
def test_logits_are_a_linear_layers_plus_the_cosine_with_the_text_attended_to(network):
    x = batch().x
    logits, image = network.eval()(x)
    text = network.clip.read(network.ids.flatten(0, 1)).unflatten(0, (3, 2))
    unit = text / text.norm(dim=-1, keepdim=True)
    query, key = network.query(image), network.key(text)
    for i in range(len(x)):
        for y in range(3):
            a = (key[y] @ query[i] / query.shape[1] ** 0.5).softmax(0)
            guided = cosine_similarity(image[i], a @ unit[y], dim=0) * network.log_scale.exp()
            torch.testing.assert_close(
                logits[i, y], network.visual(image[i])[y] + guided, rtol=1e-3, atol=1e-3
            )


def test_text_learns_first_and_is_frozen_when_images_are_recognised(network):
    network.train()
    text = next(p for n, p in network.clip.text.named_parameters() if n.endswith("out_proj.weight"))
    layer = network.visual[1].weight
    for progress, moves in ((0.0, text), (0.5, layer)):
        network.zero_grad()
        METHOD.loss(network, batch(), moment(progress)).backward()
        # Every weight has a gradient, as processes that share a network need; only some are moved.
        assert all(p.grad is not None for p in network.parameters())
        assert {p is moves: bool(p.grad.any()) for p in (text, layer)} == {True: True, False: False}


def test_recognition_is_balanced_softmax(network):
    network.train()
    b = batch()
    logits = network(b.x)[0]
    loss = METHOD.loss(network, b, moment(0.5))
    torch.testing.assert_close(loss, cross_entropy(logits + moment(0.5).counts.log(), b.label))


def test_a_training_is_kept_and_loaded_without_its_teacher(root, tmp_path):
    trained = train(images(), None, 3, RECIPE, 0, folder=tmp_path)
    assert not any("teacher" in key or key == "ids" for key in trained.network.state_dict())
    again = load(tmp_path).network
    assert torch.equal(predict(again, images(1)), predict(trained.network, images(1)))
    assert json.loads((tmp_path / "recipe.json").read_text())["recipe"]["objective"]["name"] == "VL-LTR"
    assert of_json(json.loads(json.dumps(to_json(METHOD)))) == METHOD
    # Trained once: what is kept is what is asked for.
    assert train(images(), None, 3, RECIPE, 0, folder=tmp_path).history.equals(trained.history)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sentences": ()}, r"VLLTR: key 'sentences' is \(\): .*at least 1 item"),
        ({"sentences": ("{}", "a photo")}, "key 'sentences.1' is 'a photo': must hold {} where the name"),
        ({"pretraining": 1.5}, "key 'pretraining' is 1.5: .*less than or equal to 1"),
        ({"classes": "apple"}, "key 'classes' is 'apple': .*tuple"),
    ],
)
def test_settings_out_of_range_are_named(wrong, said):
    with pytest.raises(UserError, match=said):
        replace(METHOD, **wrong)


def test_every_class_needs_its_name():
    with pytest.raises(UserError, match="3 names for 4 classes"):
        METHOD.wrap(small(4), 4, 0)

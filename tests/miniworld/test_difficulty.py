"""The world's difficulty, measured: what a small network learns from many and from few images."""

import pytest
import torch

from fgsynth.data.sources import Images
from fgsynth.miniworld.kinds import CLASSES
from fgsynth.miniworld.render import render
from fgsynth.miniworld.world import sample
from fgsynth.train.recipe import Recipe
from fgsynth.train.train import predict, train
from fgsynth.utils.seeds import stable_seed

NAMES = list(CLASSES)


def draw(name, per_class):
    kinds = [c for c in NAMES for _ in range(per_class)]
    factors = sample([stable_seed(name, i) for i in range(len(kinds))], kinds)
    label = torch.tensor([NAMES.index(k) for k in kinds])
    return Images(torch.from_numpy(render(factors)), label), torch.tensor(factors["mode"].to_numpy() > 0)


@pytest.fixture(scope="module")
def test_set():
    return draw("difficulty test", 50)


def accuracy(per_class, updates, test_set):
    recipe = Recipe(epochs=1, updates_per_epoch=updates, balanced=0.0, augment=())
    network = train(draw("difficulty train", per_class)[0], None, len(NAMES), recipe, 0).network
    images, rare = test_set
    right = predict(network, images).argmax(1) == images.label
    return right.float().mean().item(), right[rare].float().mean().item()


def test_500_images_per_class_suffice_and_few_do_not(test_set):
    many, rare_many = accuracy(500, 900, test_set)
    few, rare_few = accuracy(20, 250, test_set)
    fewest, _ = accuracy(4, 150, test_set)
    assert 0.85 <= many <= 0.95
    assert fewest < few - 0.15 < many - 0.25
    assert rare_few < 0.3 < rare_many - 0.2

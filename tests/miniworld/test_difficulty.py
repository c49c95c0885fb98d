"""The world's difficulty, measured: what a small network learns from many and from few images."""

import pytest
import torch
from fgsynth.train.classify import embed, train_erm

from fgsynth.data.images import from_uint8
from fgsynth.miniworld.kinds import CLASSES
from fgsynth.miniworld.render import render
from fgsynth.miniworld.world import sample
from fgsynth.utils.seeds import stable_seed

NAMES = list(CLASSES)


def draw(name, per_class):
    kinds = [c for c in NAMES for _ in range(per_class)]
    factors = sample([stable_seed(name, i) for i in range(len(kinds))], kinds)
    images = from_uint8(torch.from_numpy(render(factors)))
    return images, torch.tensor([NAMES.index(k) for k in kinds]), factors["mode"].to_numpy() > 0


@pytest.fixture(scope="module")
def test_set():
    return draw("difficulty test", 50)


def accuracy(per_class, updates, test_set):
    x, y, _ = draw("difficulty train", per_class)
    network = train_erm(x, y, len(NAMES), updates, seed=0)
    test_x, test_y, rare = test_set
    right = embed(network, test_x)[0].argmax(1) == test_y
    return right.float().mean().item(), right[torch.from_numpy(rare)].float().mean().item()


def test_500_images_per_class_suffice_and_few_do_not(test_set):
    many, rare_many = accuracy(500, 900, test_set)
    few, rare_few = accuracy(20, 250, test_set)
    fewest, _ = accuracy(4, 150, test_set)
    assert 0.85 <= many <= 0.95
    assert fewest < few - 0.15 < many - 0.25
    assert rare_few < 0.3 < rare_many - 0.2

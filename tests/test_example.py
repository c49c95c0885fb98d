"""The paper in one file computes what the package computes."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from fgsynth.generate.dropout import Dropout
from fgsynth.generate.generator import Generator
from fgsynth.generate.synthesise import Feedback, Plan, synthesise
from fgsynth.guidance.criteria import entropy
from fgsynth.guidance.feedback import Guidance

SEEDS = [3, 8, 11]


@pytest.fixture
def example(root):
    spec = importlib.util.spec_from_file_location("example", root / "examples/feedback_guidance.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("w", [0.0, 0.1])
def test_the_example_draws_the_packages_images(example, root, monkeypatch, w):
    monkeypatch.setattr(example, "STEPS", 6)
    generator = Generator.load(root / "data/pretrained/mini-unclip", 6)
    levels = torch.randint(256, (3, 40, 40, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    photos = [Image.fromarray(one.numpy()) for one in levels]
    weight = torch.randn(3 * 32 * 32, 5, generator=torch.Generator().manual_seed(1)) / 32
    prompts, label = ["apple", "car", "apple"], torch.tensor([0, 1, 0])

    def f(x):
        return x.flatten(1) @ weight

    image = generator.embed_image(photos, SEEDS, Dropout(example.P))
    feedback = Feedback(lambda x: (f(x), x), {"entropy": entropy}, 5, Guidance(w, every=example.EVERY))
    ours = synthesise(generator, Plan(prompts, image, label, SEEDS), example.S, feedback).images

    condition = example.embed_image(generator.pipe, photos, SEEDS)
    assert torch.equal(condition, image)
    text = example.embed_text(generator.pipe, prompts)
    x = example.sample(generator.pipe, f, text, condition, SEEDS, w)
    # All images on one row, whose pixels are equal but for rounding.
    row = torch.cat(list(ours), 1).int()
    assert (example.grid(x, 1).int() - row).abs().max() <= 1
    if w:
        unguided = example.grid(example.sample(generator.pipe, f, text, condition, SEEDS, 0.0), 1)
        assert (unguided.int() - row).abs().max() > 20


def test_the_example_writes_guided_beside_unguided(example, root, tmp_path, monkeypatch, capsys):
    weight = torch.randn(3 * 32 * 32, 24, generator=torch.Generator().manual_seed(1)) / 32
    monkeypatch.chdir(root)
    monkeypatch.setattr(example, "STEPS", 3)
    monkeypatch.setattr(example, "train", lambda x, y, n: lambda x: x.flatten(1) @ weight)
    example.main(str(tmp_path / "grid.png"), rows=1, columns=2)
    levels = torch.from_numpy(np.array(Image.open(tmp_path / "grid.png"))).int()
    assert levels.shape == (4 * 32, 4 * (2 * 64 + 8), 3)
    left, right = levels[:, : 4 * 64], levels[:, -4 * 64 :]
    assert (left - right).abs().max() > 20
    unguided, guided = (float(line.split()[-2]) for line in capsys.readouterr().out.splitlines())
    assert guided > unguided

from dataclasses import replace

import pytest
import torch

from fgsynth.config.schema import Groups, Inversion, LongTail, Sampling
from fgsynth.data import mini
from fgsynth.data.sources import Images
from fgsynth.experiments import fill_up as fill_up_module
from fgsynth.experiments.experiment import Experiment
from fgsynth.experiments.fill_up import fill_up, fine_tuned
from fgsynth.generate import plan, textual_inversion
from fgsynth.generate.generator import Generator
from fgsynth.generate.plan import Method
from fgsynth.models.networks import small
from fgsynth.pretrain.files import FOLDER
from fgsynth.train.recipe import Recipe
from fgsynth.train.train import predict
from fgsynth.utils.errors import UserError

WORLD = LongTail(n_max=101, n_min=3, strata=(8, 9, 7), n_val=1, n_test=1, modes=(1.0,), seed=0)
GROUPS = Groups(n_max=4, n_min=1, empty=4, held_out=3, classes=2, modes=(0.5, 0.5))
SAMPLING = Sampling(
    generator=str(FOLDER), n_steps=2, every=1, through_network=False, cfg=3.0, cfg_text=1.5, noise_level=0,
    dropout=0.5, scales={"entropy": 0.1, "loss": 0.2, "hardness": 0.3, "combined": 0.4}, fill_to=2,
)  # fmt: skip
RECIPE = Recipe(epochs=1, updates_per_epoch=2, batch=8)
BRIEF = Inversion(updates=1, batch=2, template="a photo of *", rate=0.1)


@pytest.fixture(scope="module")
def unclip(root):
    return Generator.load(root / FOLDER, SAMPLING.n_steps)


@pytest.fixture
def exp(unclip, tmp_path):
    return Experiment(mini.imagenet_lt(WORLD), unclip, SAMPLING, RECIPE, tmp_path)


def coloured(counts=(12, 12, 4), seed=0):
    """Noisy images of one brightness per class."""
    label = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    noise = torch.randn(len(label), 32, 32, 3, generator=torch.Generator().manual_seed(seed))
    return Images((60 + 70 * label[:, None, None, None] + 30 * noise).clamp(0, 255).to(torch.uint8), label)


def test_its_images_are_drawn_by_learned_words_which_are_learned_once(exp, monkeypatch):
    learned, real = [], textual_inversion.invert

    def counting(generator, shown, word, *rest):
        learned.append((word, len(shown)))
        return real(generator, shown, word, *rest)

    monkeypatch.setattr(textual_inversion, "invert", counting)
    made, plain = exp.synthetic(fill_up(BRIEF)), exp.synthetic(Method(image=False))
    counts = exp.bench.manifest.counts().tolist()
    expected = [min(n, BRIEF.most) for n in counts]
    assert learned == list(zip(exp.bench.manifest.classes, expected, strict=True))
    assert made.index["prompt"].tolist() == plain.index["prompt"].tolist()
    assert made.index["seed"].tolist() == plain.index["seed"].tolist()
    assert made.digest != plain.digest
    assert not torch.equal(made.x, plain.x)
    twice = replace(exp).synthetic(fill_up(BRIEF), 2.0)
    assert len(twice.index) == 2 * len(made.index)
    assert torch.equal(twice.x[0], made.x[0])
    assert len(learned) == len(counts)
    other = replace(exp, seed=1).synthetic(fill_up(BRIEF))
    assert other.digest != made.digest
    assert len(learned) == 2 * len(counts)


def test_other_settings_of_inversion_are_another_set(exp, monkeypatch):
    monkeypatch.setattr(plan, "learn_words", lambda generator, *_: generator)
    digests = {exp.synthetic(fill_up(BRIEF.model_copy(update={"updates": n}))).digest for n in (1, 2)}
    assert len(digests) == 2


def test_names_in_contexts_have_no_word(unclip, tmp_path):
    exp = Experiment(mini.nicopp(GROUPS), unclip, SAMPLING, RECIPE, tmp_path)
    with pytest.raises(UserError, match="nicopp: its prompts name contexts, learned words classes only"):
        exp.synthetic(fill_up(BRIEF))


def test_the_second_stage_moves_all_weights_by_real_images():
    real, first = coloured(), small(3).eval().requires_grad_(False)
    before = {key: value.clone() for key, value in first.state_dict().items()}
    recipe = replace(RECIPE, epochs=2, updates_per_epoch=15, batch=16, rate=0.04, augment=())
    tuned, again = (fine_tuned(first, real, recipe, 0) for _ in range(2))
    assert all(torch.equal(value, before[key]) for key, value in first.state_dict().items())
    moved = tuned.state_dict()
    assert not any(torch.equal(moved[key], before[key]) for key in before if key.endswith("weight"))
    assert all(torch.equal(value, moved[key]) for key, value in again.state_dict().items())
    assert (predict(tuned, real).argmax(1) == real.label).float().mean() > 0.9
    assert not tuned.training
    assert not any(p.requires_grad for p in tuned.parameters())


def test_the_second_stage_is_balanced_by_the_real_counts(monkeypatch):
    seen, real = [], fill_up_module.balanced_softmax

    def noting(logits, label, counts):
        seen.append(counts.tolist())
        return real(logits, label, counts)

    monkeypatch.setattr(fill_up_module, "balanced_softmax", noting)
    fine_tuned(small(3).eval(), coloured((9, 4, 1)), replace(RECIPE, counts="batch"), 0)
    assert seen == [[9.0, 4.0, 1.0]] * 2


def test_a_class_without_real_images_is_named():
    with pytest.raises(UserError, match="Class 2 has no images"):
        fine_tuned(small(3).eval(), coloured((4, 4)), RECIPE, 0)

import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from imports import closure, outside

from fgsynth.config.schema import Groups, Sampling
from fgsynth.data import mini
from fgsynth.experiments import build, experiment, trainings
from fgsynth.experiments.experiment import SYNTHESIS, Experiment
from fgsynth.experiments.trainings import TRAINING
from fgsynth.generate import compose
from fgsynth.generate.generator import Generator
from fgsynth.generate.methods import methods
from fgsynth.generate.plan import Method
from fgsynth.generate.synthesise import Synthetic
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.pretrain.files import FOLDER
from fgsynth.train.recipe import Recipe
from fgsynth.utils.errors import UserError

GROUPS = Groups(n_max=4, n_min=1, empty=4, held_out=3, classes=2, modes=(0.5, 0.5))
SAMPLING = Sampling(
    generator=str(FOLDER), n_steps=2, every=1, through_network=False, cfg=3.0, cfg_text=1.5, noise_level=0,
    dropout=0.5, scales={"entropy": 0.1, "loss": 0.2, "hardness": 0.3, "combined": 0.4}, fill_to=2,
)  # fmt: skip
RECIPE = Recipe(epochs=1, updates_per_epoch=2, batch=8, balanced=0.0)
PLAIN, GUIDED = Method(dropout=0.5), Method(dropout=0.5, criteria=("entropy",), scale=0.1)
COMBINED = replace(GUIDED, criteria=("loss", "hardness", "entropy"))


@pytest.fixture(scope="module")
def unclip(root):
    return Generator.load(root / FOLDER, SAMPLING.n_steps)


@pytest.fixture(scope="module")
def finished(unclip, tmp_path_factory):
    """An experiment with its guide trained, for others to take it over."""
    exp = Experiment(mini.nicopp(GROUPS), unclip, SAMPLING, RECIPE, tmp_path_factory.mktemp("work"))
    assert exp.guide.training is False
    return exp


@pytest.fixture
def exp(finished, tmp_path):
    """The same experiment in a work folder of its own; the guide need not be trained again."""
    fresh = replace(finished, work=tmp_path)
    fresh.__dict__["guide"] = finished.guide
    return fresh


@pytest.fixture
def asked(monkeypatch):
    """The seeds of every image that is made."""
    seeds, real = [], compose.synthesise

    def counting(generator, plan, *rest, **options):
        seeds.extend(plan.seeds)
        return real(generator, plan, *rest, **options)

    monkeypatch.setattr(compose, "synthesise", counting)
    return seeds


@pytest.fixture
def black(monkeypatch):
    """Black images, at once, where only digests matter."""

    def synthesise(generator, plan, *rest, **options):
        n = len(plan.seeds)
        return Synthetic(torch.zeros(n, 8, 8, 3, dtype=torch.uint8), *torch.full((2, n), 0.5), torch.zeros(n))

    monkeypatch.setattr(compose, "synthesise", synthesise)


def test_a_name_too_long_for_the_generator_is_refused_before_anything_is_trained(exp, tmp_path):
    m = exp.bench.manifest
    long = replace(exp.bench, manifest=replace(m, classes=(m.classes[0], "apple " * 20)))
    with pytest.raises(
        UserError, match=r"The prompt 'apple apple.*, the model takes 16: shorten it, or the name"
    ):
        replace(exp, bench=long)
    assert list(tmp_path.iterdir()) == []


def test_groups_lack_what_the_target_has_more(exp):
    counts = exp.bench.manifest.group_counts()
    assert exp.missing.tolist() == (2 - counts).clamp(min=1).tolist()
    to_the_largest = replace(exp, sampling=SAMPLING.model_copy(update={"fill_to": None}))
    assert to_the_largest.missing.tolist() == (4 - counts).clamp(min=1).tolist()


def test_a_set_is_made_once(exp, asked):
    first = exp.synthetic(GUIDED)
    assert asked == first.index["seed"].tolist()
    assert len(asked) == len(first.x) == exp.missing.sum()
    asked.clear()
    again = replace(exp)
    again.__dict__["guide"] = exp.guide
    second = again.synthetic(GUIDED)
    assert not asked
    assert torch.equal(first.x, second.x)
    assert first.index.equals(second.index)
    assert second.digest == first.digest
    assert first.images.label.tolist() == first.index["label"].tolist()


def test_the_index_says_what_feedback_did(exp):
    guided, plain = exp.synthetic(COMBINED).index, exp.synthetic(PLAIN).index
    assert set(guided["criterion"]) == {"loss+hardness+entropy"}
    assert guided[["before", "after"]].notna().all(axis=None)
    assert set(plain["criterion"]) == {""}
    assert plain[["before", "after"]].isna().all(axis=None)
    assert guided["seed"].tolist() == plain["seed"].tolist()
    assert guided["condition"].tolist() == plain["condition"].tolist()


def test_what_decides_a_set_decides_its_digest(exp, black):
    def other(**changes):
        return replace(exp, sampling=SAMPLING.model_copy(update=changes))

    drawn_anew = Groups(**{**GROUPS.model_dump(), "modes": (1.0,)})
    made = [
        exp.synthetic(PLAIN),
        exp.synthetic(Method()),
        exp.synthetic(Method(image=False)),
        exp.synthetic(PLAIN, whole=2.0),
        exp.synthetic(PLAIN, per_group=exp.missing + 1),
        other(cfg=2.0).synthetic(PLAIN),
        other(noise_level=100).synthetic(PLAIN),
        replace(exp, seed=1).synthetic(PLAIN),
        replace(exp, bench=mini.nicopp(drawn_anew)).synthetic(PLAIN),
    ]
    assert len({one.digest for one in made}) == len(made)
    assert len({len(one.index) for one in made[:3]}) == 1
    folders = [p.name for p in (exp.work / "nicopp/synthetic").iterdir()]
    assert sorted(folders) == sorted(one.digest for one in made)


def test_another_guide_makes_another_set_where_it_guides(exp, black):
    other = replace(exp, recipe=replace(RECIPE, rate=1e-2))
    assert other.synthetic(GUIDED).digest != exp.synthetic(GUIDED).digest
    assert other.synthetic(PLAIN).digest == exp.synthetic(PLAIN).digest


def test_a_killed_synthesis_goes_on_with_the_same_images(exp, asked, monkeypatch, tmp_path):
    sampling = SAMPLING.model_copy(update={"per_shard": 5})
    exp = replace(exp, sampling=sampling)
    exp.__dict__["guide"] = exp.guide
    whole = exp.synthetic(PLAIN)
    n = len(asked)
    asked.clear()
    killed = replace(exp, work=tmp_path / "killed")
    counting = compose.synthesise

    def dies(*args, **options):
        if len(asked) >= 10:
            raise KeyboardInterrupt
        return counting(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(compose, "synthesise", dies)
        with pytest.raises(KeyboardInterrupt):
            killed.synthetic(PLAIN)
    assert len(asked) == 10
    resumed = killed.synthetic(PLAIN)
    assert len(asked) == n > 10  # none is made twice
    assert torch.equal(resumed.x, whole.x)
    assert resumed.index.equals(whole.index)


def test_an_image_does_not_depend_on_the_piece_it_is_made_in(exp, monkeypatch, tmp_path):
    whole = exp.synthetic(COMBINED)
    other = replace(exp, work=tmp_path / "pieces")
    other.__dict__["guide"] = exp.guide
    monkeypatch.setattr(experiment, "fill", partial(experiment.fill, piece=3))
    pieces = other.synthetic(COMBINED)
    # The order of sums in a convolution follows the size of the batch.
    assert (pieces.x.int() - whole.x.int()).abs().max() <= 2
    np.testing.assert_allclose(pieces.index["after"], whole.index["after"], rtol=1e-2)
    assert pieces.index["condition"].equals(whole.index["condition"])


def test_a_part_of_a_larger_set_is_the_smaller_set(exp, black):
    twice = exp.synthetic(PLAIN, whole=2.0)
    once = exp.synthetic(PLAIN)
    part = twice.part(1.0, 2.0)
    assert part.index["seed"].tolist() == once.index["seed"].tolist()
    assert len(part.x) == len(once.x)
    assert part.index.index.tolist() == list(range(len(once.index)))
    assert len({twice.digest, part.digest, twice.part(0.5, 2.0).digest}) == 3


def test_classifiers_are_trained_once_and_kept_apart(exp, black, monkeypatch):
    synthetic = exp.synthetic(PLAIN)
    folders = [
        exp.trainings.folder(*job)
        for job in ((RECIPE, 0), (RECIPE, 1), (RECIPE, 0, synthetic), (replace(RECIPE, batch=4), 0))
    ]
    assert len(set(folders)) == 4
    first = exp.trainings.train(RECIPE, 0)
    assert (folders[0] / "network.safetensors").is_file()
    monkeypatch.setattr("fgsynth.train.train._run", None)
    again = exp.trainings.train(RECIPE, 0)
    assert again.history["loss"].tolist() == pytest.approx(first.history["loss"].tolist())


def test_classifiers_trained_by_several_processes_are_those_trained_here(exp, monkeypatch):
    grey = torch.full((8, 32, 32, 3), 128, dtype=torch.uint8)
    synthetic = SyntheticSet(pd.DataFrame({"label": [0, 1] * 4}), grey, "grey")
    jobs = [(RECIPE, seed, made) for seed in (0, 1) for made in (None, synthetic)]
    here = [exp.trainings.train(*job).network.state_dict() for job in jobs]
    for job in jobs:
        shutil.rmtree(exp.trainings.folder(*job))
    monkeypatch.setattr(trainings, "WORTH", 0)
    exp.trainings.train_all(jobs)
    monkeypatch.setattr("fgsynth.train.train._run", None)
    for job, weights in zip(jobs, here, strict=True):
        there = exp.trainings.train(*job).network.state_dict()
        assert all(torch.equal(there[key], value) for key, value in weights.items())


def test_predictions_are_kept_where_there_is_a_folder(exp, tmp_path):
    network = exp.guide
    without = exp.trainings.predicted(network, "val")
    assert without.shape == (len(exp.bench.manifest.rows("val")),)
    assert not list(tmp_path.glob("*.npy"))
    assert exp.trainings.predicted(network, "val", tmp_path).tolist() == without.tolist()
    kept = 1 - without
    np.save(tmp_path / "predicted-val.npy", kept)
    assert exp.trainings.predicted(network, "val", tmp_path).tolist() == kept.tolist()
    assert [p.name for p in tmp_path.iterdir()] == ["predicted-val.npy"]


def test_an_experiment_from_a_notebooks_parameters(exp, unclip, monkeypatch, root):
    asked = []
    monkeypatch.setattr(build.Generator, "load", lambda *given, **options: asked.append(given) or unclip)
    training = {
        "network": "slim", "pretrained": False, "optimiser": "adamw", "rate": 0.01, "weight_decay": 0.05,
        "epochs": 3, "updates_per_epoch": 6, "batch": 32, "balanced": 1.0, "counts": "batch",
        "augment": ["flip"],
    }  # fmt: skip
    sampling = SAMPLING.model_dump(mode="json")
    made = build.of_world("nicopp", GROUPS.model_dump(), sampling, training, "scratch/work", 4)
    assert made.bench.manifest.digest == exp.bench.manifest.digest
    assert asked == [(str(root / FOLDER), 2)]
    assert (made.sampling, made.seed, made.work) == (SAMPLING, 4, root / "scratch/work")
    assert made.guide_recipe == Recipe(**training | {"balanced": 0.0})
    with pytest.raises(UserError, match="No benchmark 'cifar': choose one of imagenet_lt, places_lt, nicopp"):
        build.of_world("cifar", {}, {}, {}, "scratch/work")


def test_methods_are_rows_of_the_papers_tables(root):
    printed = [pd.read_csv(root / f"data/paper/{name}.csv")["method"]
               for name in ("table1_imagenet_lt", "table6_combined")]  # fmt: skip
    assert set(methods(SAMPLING)) - set(pd.concat(printed)) == {"LDM (txt, img, dropout)"}


def test_methods_are_sampled_as_the_settings_say():
    made = methods(SAMPLING)
    assert not made["LDM (txt)"].image
    assert made["LDM (txt and img)"] == Method()
    assert made["LDM (txt, img, dropout)"] == PLAIN
    guided = {name: (m.criteria, m.scale, m.dropout) for name, m in made.items() if m.criteria}
    assert guided == {
        "LDM-FG (Loss)": (("loss",), 0.2, 0.5),
        "LDM-FG (Hardness)": (("hardness",), 0.3, 0.5),
        "LDM-FG (Entropy)": (("entropy",), 0.1, 0.5),
        "LDM-FG (Combined)": (("loss", "hardness", "entropy"), 0.4, 0.5),
    }


# Settings stand in the digest themselves.
SETTINGS = "config"


def test_synthetic_sets_are_fingerprinted_with_all_the_code_that_makes_them(root):
    run = closure(root, {"fgsynth/experiments/experiment.py", "fgsynth/data/mini.py"})
    assert {"fgsynth/generate/plan.py", "fgsynth/guidance/criteria.py"} <= run
    assert outside(run, (*SYNTHESIS, SETTINGS)) == {"fgsynth/experiments/trainings.py"}


def test_classifiers_are_fingerprinted_with_all_the_code_that_trains_them(root):
    second = {f"fgsynth/train/second_stage/{name}.py" for name in ("crt", "rescale")}
    run = closure(root, {"fgsynth/train/train.py", "fgsynth/data/mini.py", *second})
    assert "fgsynth/train/loop.py" in run
    assert outside(run, (*TRAINING, SETTINGS)) == set()


def test_the_parts_of_a_set_together_are_the_set(exp):
    each = np.full(exp.n_classes * len(exp.bench.manifest.contexts), 3)
    whole = exp.synthetic(PLAIN, per_group=each)
    parts = [exp.synthetic(PLAIN, per_group=each, part=(k, 2)) for k in range(2)]
    joined = SyntheticSet.joined(parts)
    order = joined.index["key"].argsort()
    assert joined.index["key"][order].tolist() == sorted(whole.index["key"])
    whole_order = torch.tensor(whole.index["key"].argsort().to_numpy())
    apart = joined.x[torch.tensor(order.to_numpy())].int() - whole.x[whole_order].int()
    # Another batch rounds one grey level the other way here and there.
    assert apart.abs().max() <= 1
    assert len({whole.digest, joined.digest, *(part.digest for part in parts)}) == 4


def test_a_network_at_hand_guides(exp):
    other = exp.trainings.train(exp.guide_recipe, 77).network
    given = replace(exp, guided_by=other)
    assert given.guide is other
    assert given.guide_is_there
    assert not torch.equal(given.synthetic(GUIDED).x, exp.synthetic(GUIDED).x)

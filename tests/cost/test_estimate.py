import json
import math
from dataclasses import asdict, replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from tiny_bench import no_generator
from tiny_unclip import save

from fgsynth.config import names as config_names
from fgsynth.config import params
from fgsynth.config.names import FG_ENTROPY
from fgsynth.config.schema import Groups, Sampling
from fgsynth.cost import calibrate as calibration
from fgsynth.cost import estimate
from fgsynth.cost.calibrate import Calibration, calibrate, calibrate_training
from fgsynth.cost.estimate import Evaluations, evaluations, sets
from fgsynth.data import mini, registry
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.compose import guidance_of
from fgsynth.generate.generator import Generator
from fgsynth.generate.methods import methods, trainings
from fgsynth.generate.plan import Method, missing_per_group
from fgsynth.generate.synthesise import Feedback, Plan, synthesise
from fgsynth.guidance.criteria import entropy
from fgsynth.models.networks import small
from fgsynth.train.recipe import Recipe
from fgsynth.utils.errors import UserError

SAMPLING = Sampling(
    generator="", n_steps=6, every=2, through_network=True, cfg=3.0, cfg_text=1.0, noise_level=0, dropout=0.5,
    scales={"entropy": 0.1, "loss": 0.2, "hardness": 0.3, "combined": 0.4}, fill_to=None, per_shard=100,
)  # fmt: skip
GUIDED = Method(criteria=("entropy",), scale=0.1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return Generator.load(save(tmp_path_factory.mktemp("unclip")), n_steps=6)


class Counted:
    """Images through the networks of a generator and its guide, forwards and backwards."""

    def __init__(self, generator, classifier):
        self.seen = dict.fromkeys(asdict(Evaluations()), 0)
        networks = {
            "denoiser": generator.pipe.unet,
            "decoder": generator.pipe.vae.decoder,
            "classifier": classifier,
        }
        self.handles = []
        for name, network in networks.items():
            self.handles.append(network.register_forward_hook(self.hook(name, 1)))
            self.handles.append(network.register_full_backward_hook(self.hook(f"{name}_back", 1)))

    def hook(self, name, at):
        def count(_, first, second):
            self.seen[name] += len(first[0])

        return count

    def remove(self):
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        (Method(), {}),
        (Method(image=False), {}),
        (Method(image=False), {"cfg_text": 2.0}),
        (GUIDED, {}),
        (GUIDED, {"through_network": False, "every": 1}),
        (GUIDED, {"start": 1, "stop": 5, "every": 3, "cfg": 1.0}),
        (replace(GUIDED, scale=0.0), {}),
    ],
)
def test_evaluations_are_those_that_the_sampler_makes(tiny, method, changes):
    s, n = SAMPLING.model_copy(update=changes), 3
    classifier = small(4).eval().requires_grad_(False)
    guidance = guidance_of(s, method.scale)
    feedback = Feedback(classifier, {"entropy": entropy}, 4, guidance) if method.criteria else None
    plan = Plan(["apple"] * n, tiny.no_image(n), torch.zeros(n, dtype=torch.long), range(n))
    counted = Counted(tiny, classifier)
    try:
        synthesise(tiny, plan, s.cfg if method.image else s.cfg_text, feedback, batch=2)
    finally:
        counted.remove()
    if feedback:
        counted.seen["classifier"] -= 1  # a black image, once per call, to count the classes
    assert counted.seen == asdict(evaluations(n, s, method))


def test_the_papers_sampler_by_hand():
    """30 steps under classifier-free guidance, feedback at 0, 5, ..., 25 (FG 3.1)."""
    s = SAMPLING.model_copy(update={"n_steps": 30, "every": 5})
    assert evaluations(1000, s, GUIDED) == Evaluations(60_000, 12_000, 7000, 6000, 7000, 6000)


def test_hours_disk_and_shards_by_hand():
    measured = Calibration("a card", {1: 3.0, 4: 1.8, 8: 2.0}, 5000.0)
    made = estimate.estimate(250, SAMPLING, GUIDED, measured)
    assert (measured.batch, measured.best) == (4, 1.8)
    assert (made.images, made.shards, made.bytes) == (250, 3, 1_250_000)
    assert made.gpu_hours == pytest.approx(250 * 1.8 / 3600)
    assert made.evaluations == evaluations(250, SAMPLING, GUIDED)


def test_gpus_take_whole_shards():
    made = estimate.estimate(250, SAMPLING, GUIDED, Calibration("", {1: 3600.0}))
    assert [made.hours(n) for n in (1, 2, 3, 50)] == [250, 200, 100, 100]
    assert estimate.estimate(30, SAMPLING, GUIDED, Calibration("", {1: 3600.0})).hours(8) == 30


def test_without_a_measurement_nothing_is_claimed():
    made = estimate.estimate(2, SAMPLING)
    assert math.isnan(made.gpu_hours)
    assert math.isnan(made.bytes)


def test_a_training_by_hand():
    recipe, trained = Recipe(epochs=3, batch=8), {True: 5, False: 2}
    stage = SimpleNamespace(recipe=recipe, key=lambda method: method, trainings=trained)
    known = {None: Calibration("", {8: 200.0})}
    alone, both = (estimate._classifiers(stage, known, 20, mixed) for mixed in (False, True))
    assert alone == "2 classifiers on real images: 9 updates each, 144 images, 8 GPU hours"
    assert both.startswith("5 classifiers on real and synthetic images: 15 updates"), (
        "half of a batch is real"
    )
    assert estimate._classifiers(stage, {}, 20, False).endswith("144 images")


@pytest.mark.parametrize("stage", ["imagenet_lt", "places_lt", "nicopp"])
def test_the_trainings_counted_are_those_of_the_results(root, stage):
    block = params.load(root / "params.yaml").at("mini").overrides(stage)
    counted = trainings(stage, block, sets(stage, block, SAMPLING))
    rows = pd.read_csv(root / "reports" / "mini" / stage / "results.csv")
    # Rows under two names, and rows that share the first stage of another.
    second = {config_names.CRT, config_names.BALMS}
    twice = [
        config_names.variant(FG_ENTROPY, *of)
        for of in (("amount", 0), ("amount", 1), ("weight", 1), ("w", 0), ("w", 0.03))
    ]
    left = set(rows["method"]) - set(twice) - second
    assert len(left) * (block["seeds"] + block.get("draws", 1) - 1) + 1 == sum(counted.values())


class Clock:
    """A machine on which only a trial takes time."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_batches_double_while_time_and_memory_last():
    clock, tried = Clock(), []

    def trial(batch):
        if batch > limit:
            raise UserError("A batch does not fit into memory.")
        tried.append(batch)
        clock.now += 1 + batch / 4

    limit = 1000
    # Two trials of 1 + batch / 4 s each: 43.5 s up to batches of 32, and 64 would take as long once more.
    assert calibration._growing(trial, 60.0, clock) == {
        1: 1.25,
        2: 0.75,
        4: 0.5,
        8: 0.375,
        16: 0.3125,
        32: 0.28125,
    }
    assert clock.now == 43.5
    assert tried == [1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32]
    limit = 2
    assert list(calibration._growing(trial, 1e9, clock)) == [1, 2]
    limit = 0
    with pytest.raises(UserError, match="does not fit"):
        calibration._growing(trial, 1e9, clock)


def test_a_calibration_sees_that_feedback_costs(tiny):
    classifier = small(4)
    plain, guided = (calibrate(tiny, SAMPLING, way, classifier, seconds=0.0) for way in (Method(), GUIDED))
    assert list(plain.seconds) == [1]
    assert guided.best > plain.best > 0
    assert 1024 < plain.bytes < 64 * 64 * 3 + 2048
    assert plain.bytes % 512 == 0
    assert "threads, torch" in plain.device
    with pytest.raises(UserError, match="guided by entropy needs a classifier"):
        calibrate(tiny, SAMPLING, GUIDED)


def test_training_is_calibrated_on_its_own_batch():
    made = calibrate_training(Recipe(network="slim", batch=4), 3, 32, seconds=0.0)
    assert list(made.seconds) == [4]
    assert 0 < made.best < 5


def test_calibrations_are_kept(tmp_path):
    kept = {"a": Calibration("card", {1: 0.5, 2: 0.25}, 100.0)}
    calibration.write(tmp_path / "x.json", kept)
    assert calibration.read(tmp_path / "x.json") == kept
    assert calibration.read(tmp_path / "y.json") == {}
    for text in ("{", '{"a": 1}', "[]", '{"a": {"device": ""}}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(UserError, match=r"x\.json .*: remove it and calibrate again"):
            calibration.read(tmp_path / "x.json")


def test_sets_are_those_of_the_notebooks(root):
    ways = methods(SAMPLING)
    asked = {
        "imagenet_lt": ({"amounts": (0.0, 1.0, 2.0)}, [*ways, "LDM-FG (Entropy), amount 2"]),
        "places_lt": ({}, [name for name in ways if "Combined" not in name]),
        "nicopp": (
            {"coefficients": (0.1, 0.5)},
            [
                *("LDM (txt)", "LDM (txt, img, dropout)", "LDM-FG (Loss)", "LDM-FG (Hardness)"),
                *("LDM-FG (Entropy)", "LDM-FG (Entropy), w 0.5"),
            ],
        ),
    }
    for number, (stage, (block, names)) in enumerate(asked.items(), 4):
        made = sets(stage, block, SAMPLING)
        assert list(made) == names
        notebook = json.loads((root / f"notebooks/0{number}_{stage}.ipynb").read_text())
        code = "".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
        if stage != "imagenet_lt":
            constant = {value: key for key, value in vars(config_names).items() if isinstance(value, str)}
            used = {name for name in ways if f"names.{constant[name]}" in code}
            used |= set(config_names.FG.values()) if "names.FG.values()" in code else set()
            assert used == {n for n in names if n in ways}
    assert made["LDM-FG (Entropy), w 0.5"] == (replace(ways["LDM-FG (Entropy)"], scale=0.5), 1.0)


def test_a_plan_is_printed_without_a_measurement(checkout):
    text = estimate.run("imagenet_lt", "evening")
    assert text.startswith("imagenet_lt at scale evening: 24 classes, 1,706 real images\n")
    assert "hours and disk (-) are not known: add --calibrate 60" in text
    assert "nan" not in text.lower()


def test_a_plan_is_printed_with_one(checkout, monkeypatch):
    monkeypatch.setattr(estimate, "generator_of", lambda _: None)
    kinds = []

    def calibrated(model, sampling, method, guide, side, seconds):
        kinds.append((method.image, bool(method.criteria), seconds))
        assert side == 32
        return Calibration("a card", {8: 0.5}, 2e6)

    monkeypatch.setattr(estimate, "calibrate", calibrated)
    monkeypatch.setattr(estimate, "calibrate_training", lambda *_, **__: Calibration("a card", {64: 0.01}))
    text = estimate.run("nicopp", "mini", gpus=2, price=3.0, seconds=60)
    assert kinds == [(False, False, 15), (True, False, 15), (True, True, 15)]
    assert "on 2 GPUs in" in text
    assert "measured on a card, batches of 8" in text
    assert estimate.run("nicopp", "mini", gpus=2, price=3.0) == text, "it was kept"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("toy_2d",),
            "No synthetic sets are planned for 'toy_2d': choose one of imagenet_lt, places_lt, nicopp",
        ),
        (("nicopp", "smoke"), "No estimate at scale 'smoke'"),
        (("nicopp", "huge"), "No scale 'huge': choose one of smoke, mini, evening, paper"),
    ],
)
def test_unfit_requests_are_refused(checkout, arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        estimate.run(*arguments)
    with pytest.raises(UserError, match="'gpus' is 0"):
        estimate.run("nicopp", gpus=0)


def test_groups_are_filled_as_an_experiment_fills_them():
    groups = Groups(n_max=4, n_min=1, empty=4, held_out=3, classes=2, modes=(0.5, 0.5))
    counts = registry.train_counts("nicopp", groups)
    assert counts.shape == (2, 6)
    exp = Experiment(mini.nicopp(groups), no_generator(), SAMPLING, Recipe(), None)
    assert missing_per_group(counts, None).flatten().tolist() == exp.missing.tolist()

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_bench import bench, manifest
from torch import nn

from fgsynth.beyond import filters
from fgsynth.beyond.filters import (
    by_confidence,
    by_prototype,
    dropped,
    embedded,
    filtered,
    limits,
    prototypes,
)
from fgsynth.config.schema import Groups, Sampling
from fgsynth.data import mini
from fgsynth.data.benchmark import Benchmark
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.generator import Generator
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.models.networks import small, with_last_layer
from fgsynth.pretrain.files import FOLDER
from fgsynth.train.recipe import Recipe
from fgsynth.utils.errors import UserError

GROUPS = Groups(n_max=4, n_min=1, empty=4, held_out=3, classes=2, modes=(0.5, 0.5))
SAMPLING = Sampling(
    generator=str(FOLDER), n_steps=2, every=1, through_network=False, cfg=3.0, cfg_text=1.5, noise_level=0,
    dropout=0.5, scales={"entropy": 0.1, "loss": 0.2, "hardness": 0.3, "combined": 0.4}, fill_to=2,
)  # fmt: skip
RECIPE = Recipe(network="thin", epochs=1, updates_per_epoch=2, batch=8)
REAL = ((0, 10, 20), (70, 80, 90))


def shown(levels):
    """Images of one grey level each."""
    grey = torch.tensor(levels, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    return grey.expand(-1, 32, 32, 3).contiguous()


def directions(images, batch=256):
    """An embedding by hand: an image's grey level is its direction in degrees, its length is its own."""
    degrees = torch.tensor([float(one[0, 0, 0]) for one in images])
    angle = torch.deg2rad(degrees)
    return (1 + degrees[:, None] / 90) * torch.stack([angle.cos(), angle.sin()], 1)


def experiment(real=REAL):
    def images(rows):
        names = zip(rows["key"], rows["label"], strict=True)
        return shown([real[label][int(key.split("-")[-1])] for key, label in names])

    of = Benchmark(manifest({"train": [len(one) for one in real]}), images)
    generator = SimpleNamespace(clip_embedding=directions)
    return Experiment(of, generator, None, RECIPE, None)


def synthetic(*pairs):
    """From (label, level) of each image."""
    label, levels = zip(*pairs, strict=True)
    return SyntheticSet(pd.DataFrame({"label": label, "context": 0}), shown(levels), "made")


def test_prototypes_are_mean_directions_of_unit_length():
    exp = experiment()
    found = prototypes(embedded(exp, exp.real), exp.real.label, 2)
    expected = directions(shown([10, 80])).double()
    torch.testing.assert_close(found, expected / expected.norm(dim=1, keepdim=True), atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="Class 2 has no real image"):
        prototypes(embedded(exp, exp.real), exp.real.label, 3)


def test_a_image_nearer_to_another_class_is_dropped():
    made = synthetic((0, 10), (0, 44), (0, 46), (1, 50), (1, 40))
    assert by_prototype(experiment(), made).tolist() == [True, True, False, True, False]


def test_the_least_bad_image_of_a_class_is_kept():
    made = synthetic((0, 60), (0, 50), (0, 80), (1, 80))
    assert by_prototype(experiment(), made).tolist() == [False, True, False, True]
    far = synthetic((0, 60), (0, 50), (1, 80))
    assert by_prototype(experiment(), far, "quantile", 0.5).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("share", "kept"), [(0.5, [10, 11]), (0.1, [10]), (0.75, [10, 11, 20]), (1.0, [10, 11, 20, 30])]
)
def test_a_share_of_every_class_is_kept_the_nearest(share, kept):
    levels = np.array([30, 10, 20, 11])
    made = synthetic(*[(0, level) for level in levels], (1, 20))
    mask = by_prototype(experiment(), made, "share", share)
    assert sorted(levels[mask[:4]]) == kept
    assert mask[4]  # the only one of its class


def test_limits_are_quantiles_of_distances_to_the_others():
    """Each against the mean direction of the other two: 15, 0 and 15 degrees away."""
    exp = experiment()
    real, label = embedded(exp, exp.real), exp.real.label
    far = 1 - np.cos(np.deg2rad(15))
    assert limits(real, label, 2, 1.0, few=2).tolist() == pytest.approx([far, far], abs=1e-6)
    assert limits(real, label, 2, 0.25, few=2).tolist() == pytest.approx([far / 2, far / 2], abs=1e-6)


def test_a_class_of_few_takes_the_limit_of_all():
    exp = experiment(((0, 10, 20), (78, 82)))
    real, label = embedded(exp, exp.real), exp.real.label
    own, pooled = limits(real, label, 2, 1.0, few=2), limits(real, label, 2, 1.0, few=3)
    wide, narrow = (1 - np.cos(np.deg2rad(angle)) for angle in (15, 4))
    assert own.tolist() == pytest.approx([wide, narrow], abs=1e-6)
    assert pooled.tolist() == pytest.approx([wide, wide], abs=1e-6)


def test_images_farther_than_real_ones_are_dropped():
    exp = experiment(((0, 10, 20), (80,)))
    made = synthetic((0, 24), (0, 26), (1, 94), (1, 96))
    assert by_prototype(exp, made, "quantile", 1.0).tolist() == [True, False, True, False]
    with pytest.raises(UserError, match="No class has two real images"):
        by_prototype(experiment(((0,), (80,))), made, "quantile")


def says(*bias):
    layer = nn.Linear(128, len(bias))
    layer.weight.data.zero_()
    layer.bias.data = torch.tensor(bias)
    return with_last_layer(small(len(bias), 0), layer)


def test_unsure_images_are_dropped_but_for_one_of_each_class():
    exp, network = experiment(), says(0.0, 1.0)  # class 1 with 73 %
    made = synthetic((0, 1), (0, 2), (1, 3), (1, 4))
    assert by_confidence(exp, made, network, 0.5).tolist() == [True, False, True, True]
    assert by_confidence(exp, made, network, 0.2).all()
    assert by_confidence(exp, made, network, 0.75).tolist() == [True, False, True, False]


def test_wrong_rules_are_refused():
    made = synthetic((0, 1), (1, 2))
    with pytest.raises(UserError, match="Unknown rule 'near': choose one of nearest, quantile, share"):
        by_prototype(experiment(), made, "near")
    for at in (0, 1.1):
        with pytest.raises(UserError, match="a quantile or share above 0 and at most 1"):
            by_prototype(experiment(), made, "share", at)
    with pytest.raises(UserError, match="a probability from 0 to 1"):
        by_confidence(experiment(), made, says(0.0, 1.0), 50)


def test_a_filtered_set_says_in_its_digest_what_filtered_it():
    made = synthetic((0, 1), (0, 2), (1, 3), (1, 4))
    one, other = np.array([True, False, True, True]), np.array([True, False, False, True])
    left = filtered(made, one, "nearest")
    assert left.index["label"].tolist() == [0, 1, 1]
    assert left.images.x[:, 0, 0, 0].tolist() == [1, 3, 4]
    digests = {
        made.digest,
        *(filtered(made, mask, name).digest for mask in (one, other) for name in ("nearest", "quantile 0.9")),
    }
    assert len(digests) == 5
    assert filtered(made, one, "nearest").digest == left.digest


def test_nothing_of_a_class_is_never_what_a_filter_leaves():
    made = synthetic((0, 1), (0, 2), (1, 3))
    with pytest.raises(UserError, match="'mine' leaves no image of class 1"):
        filtered(made, np.array([True, True, False]), "mine")
    for mask in (np.array([True, True]), np.array([1, 0, 1])):
        with pytest.raises(UserError, match="for 3 synthetic images: give booleans"):
            filtered(made, mask, "mine")


def table_of(made, mask, factors, monkeypatch):
    """Classes of 30 and 3 real images; the judge sees what stands in the index."""

    def judged(exp, some):
        return {"recognised": 100 * float(some.index["right"].mean())}

    monkeypatch.setattr(filters, "contents_of", judged)
    of = bench({"train": (30, 3)}, factors=factors)
    exp = Experiment(of, None, None, RECIPE, None)
    return dropped(exp, made, np.array(mask)).set_index("stratum")


MADE = synthetic((0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (1, 6))
MASK = [True, True, True, False, True, False]


def test_what_is_dropped_is_counted_by_stratum(monkeypatch):
    found = table_of(MADE, MASK, False, monkeypatch)
    assert found.index.tolist() == ["all", "medium", "few"]
    assert found.columns.tolist() == ["n", "dropped", "one_left"]
    assert found["n"].tolist() == [6, 4, 2]
    assert found["dropped"].tolist() == pytest.approx([100 / 3, 25, 50])
    assert found["one_left"].tolist() == [1, 0, 1]


def test_precision_and_recall_by_hand(monkeypatch):
    right = [True, False, True, False, True, True]
    made = SyntheticSet(MADE.index.assign(right=right), MADE.x, "made")
    found = table_of(made, MASK, True, monkeypatch)
    assert found["wrong"].tolist() == pytest.approx([100 / 3, 50, 0])
    assert found["precision"].tolist() == pytest.approx([50, 100, 0])
    assert found["recall"].tolist() == pytest.approx([50, 50, np.nan], nan_ok=True)
    none = table_of(made, [True] * 6, True, monkeypatch)
    assert none["precision"].isna().all()
    assert none["recall"].tolist()[:2] == [0, 0]


@pytest.fixture(scope="module")
def world(root, tmp_path_factory):
    unclip = Generator.load(root / FOLDER, SAMPLING.n_steps)
    return Experiment(mini.nicopp(GROUPS), unclip, SAMPLING, RECIPE, tmp_path_factory.mktemp("work"))


def test_images_of_another_class_are_found_in_the_mini_world(world):
    """Validation images stand for synthetic ones, each second under the name of the other class."""
    rows = world.bench.manifest.rows("val")
    right = np.arange(len(rows)) % 2 == 0
    index = rows.assign(label=np.where(right, rows["label"], 1 - rows["label"]))
    made = SyntheticSet(index, world.bench.images(rows), "val")
    told = dropped(world, made, right).iloc[0]
    assert told["precision"] > 80
    assert told["recall"] > 80
    mask = by_prototype(world, made)
    assert mask[right].mean() > mask[~right].mean()
    assert dropped(world, made, mask).iloc[0]["dropped"] == pytest.approx(100 * (~mask).mean())

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_bench import bench, manifest, no_generator

from fgsynth.beyond import filters
from fgsynth.beyond.filters import by_prototype, dropped, prototypes, unit_embeddings
from fgsynth.config.schema import Groups, Sampling
from fgsynth.data import mini
from fgsynth.data.benchmark import Benchmark
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.generator import Generator
from fgsynth.generate.synthetic_set import SyntheticSet
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
    generator = no_generator(clip_embedding=directions)
    return Experiment(of, generator, None, RECIPE, None)


def synthetic(*pairs):
    """From (label, level) of each image."""
    label, levels = zip(*pairs, strict=True)
    return SyntheticSet(pd.DataFrame({"label": label, "context": 0}), shown(levels), "made")


def test_prototypes_are_mean_directions_of_unit_length():
    exp = experiment()
    found = prototypes(unit_embeddings(exp, exp.real), exp.real.label, 2)
    expected = directions(shown([10, 80])).double()
    torch.testing.assert_close(found, expected / expected.norm(dim=1, keepdim=True), atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="Class 2 has no real image"):
        prototypes(unit_embeddings(exp, exp.real), exp.real.label, 3)


def test_the_nearest_and_the_farthest_of_every_class_are_dropped():
    # The prototypes stand at 10 and at 80 degrees.
    made = synthetic((0, 12), (0, 40), (0, 5), (0, 90), (0, 10), (1, 80), (1, 60), (1, 0))
    tail = by_prototype(experiment(), made, 0.2)
    assert tail.tolist() == [True, True, True, False, False, True, True, True]
    more = by_prototype(experiment(), made, 0.4)
    assert more.tolist() == [False, False, True, False, False, False, True, False]


def table_of(made, mask, factors, monkeypatch):
    """Classes of 30 and 3 real images; the judge sees what stands in the index."""

    of = bench({"train": (30, 3)}, factors=factors)

    def judged(exp, some):
        names = [of.manifest.classes[label] for label in some.index["label"]]
        return pd.DataFrame({"kind": np.where(some.index["right"], names, "other")})

    monkeypatch.setattr(filters, "readings", judged)
    exp = Experiment(of, no_generator(), None, RECIPE, None)
    return dropped(exp, made, np.array(mask)).set_index("stratum")


MADE = synthetic((0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (1, 6))
MASK = [True, True, True, False, True, False]


def test_what_is_dropped_is_counted_by_stratum(monkeypatch):
    found = table_of(MADE, MASK, False, monkeypatch)
    assert found.index.tolist() == ["all", "medium", "few"]
    assert found.columns.tolist() == ["n", "dropped"]
    assert found["n"].tolist() == [6, 4, 2]
    assert found["dropped"].tolist() == pytest.approx([100 / 3, 25, 50])


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
    mask = by_prototype(world, made, 0.25)
    assert dropped(world, made, mask).iloc[0]["dropped"] == pytest.approx(100 * (~mask).mean())

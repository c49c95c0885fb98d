from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fgsynth.config.names import FG_ENTROPY, REAL_ONLY, UNGUIDED
from fgsynth.config.schema import LongTail
from fgsynth.data import mini
from fgsynth.data.benchmark import Benchmark, Manifest
from fgsynth.data.disk import folders
from fgsynth.data.sources import ImageFiles, Images
from fgsynth.experiments import own_images
from fgsynth.experiments.build import of_benchmark
from fgsynth.experiments.study import Row, Scored, scores
from fgsynth.generate.generator import Generator
from fgsynth.generate.methods import methods
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.pretrain.files import FOLDER
from fgsynth.utils.errors import UserError

SAMPLING = {
    "generator": str(FOLDER), "n_steps": 3, "every": 2, "through_network": False, "cfg": 3.0, "cfg_text": 1.5,
    "noise_level": 0, "dropout": 0.5, "fill_to": 6, "per_shard": 10,
    "scales": dict.fromkeys(("entropy", "loss", "hardness", "combined"), 0.03),
}  # fmt: skip
TRAINING = {
    "network": "slim", "pretrained": False, "optimiser": "adamw", "rate": 0.01, "weight_decay": 0.05,
    "epochs": 1, "updates_per_epoch": 2, "batch": 8, "balanced": 1.0, "counts": "batch", "augment": ["flip"],
    "side": 32,
}  # fmt: skip


def put(folder, counts, side=40):
    rng = np.random.default_rng(0)
    for split, counted in counts.items():
        for name, n in counted.items():
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                image = rng.integers(0, 256, (side, side + i, 3), np.uint8)
                Image.fromarray(image).save(folder / split / name / f"{i}.png")


@pytest.fixture
def exp(tmp_path, root, monkeypatch):
    monkeypatch.chdir(root)
    place = tmp_path / "images"
    put(place, {"train": {"red_fox": 5, "owl": 3}, "val": {"red_fox": 4, "owl": 4}})
    return experiment(place, tmp_path)


def experiment(place, tmp_path):
    return of_benchmark(own_images.benchmark(place, 32), SAMPLING, TRAINING, str(tmp_path / "work"))


def scored(*predicted):
    return Scored("m", tuple(range(len(predicted))), 0, np.array(predicted), ({},) * len(predicted))


def test_a_folder_goes_through_the_whole_protocol(exp, tmp_path):
    assert exp.bench.manifest.classes == ("owl", "red fox")
    made = exp.synthetic(methods(exp.sampling)[FG_ENTROPY], per_group=np.array([3, 0]))
    assert set(made.index["label"]) == {0}
    assert made.x.shape == (3, 32, 32, 3)
    after = scores(exp, {"after": Row(exp.recipe, made)}, [0, 1], "val")["after"]
    assert after.predicted.shape == (2, 4)
    index = own_images.export(exp, made, tmp_path / "out")
    again = folders.from_csv(tmp_path / "out" / "index.csv")
    assert again.classes == ("owl",)
    image = np.asarray(Image.open(tmp_path / "out" / index["path"][1]))
    assert np.array_equal(image, made.x[1].numpy())


def test_an_export_is_finished_and_never_mixed_with_another(exp, tmp_path):
    columns = {"label": [0, 1], "key": ["a", "b"], "prompt": "p", "condition": "", "seed": [1, 2]}
    notes = {"criterion": "", "before": np.nan, "after": np.nan}
    grey = torch.full((2, 8, 8, 3), 9, dtype=torch.uint8)
    made = SyntheticSet(pd.DataFrame(columns | notes), grey, "d")
    index = own_images.export(exp, made, tmp_path / "out")
    lost = tmp_path / "out" / index["path"][0]
    lost.unlink()
    own_images.export(exp, made, tmp_path / "out")
    assert lost.is_file()
    # By another generator, say, which the other columns of the index do not show.
    other = SyntheticSet(made.index, grey + 1, "e")
    with pytest.raises(UserError, match="holds another synthetic set"):
        own_images.export(exp, other, tmp_path / "out")


NAMES = ("a/b", "a-b", "..", ".hidden", "a\\b", "a b", "a_b", "a%2Fb", "cat ", "a:b*?", "é", ".", "x\ny")


@pytest.mark.parametrize("place", ["", "index.csv"])
def test_any_class_name_is_exported_below_train_and_read_again(exp, tmp_path, place):
    n = len(NAMES)
    table = pd.DataFrame({"key": map(str, range(n)), "split": "train", "label": range(n), "context": 0})
    bench = Benchmark(Manifest("odd", table, NAMES), lambda rows: None)
    columns = {"label": range(n), "key": map(str, range(n)), "prompt": "p", "condition": "", "seed": range(n)}
    index = pd.DataFrame(columns | {"criterion": "", "before": np.nan, "after": np.nan})
    x = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 8, 8, 3)
    odd = replace(exp, bench=bench)
    own_images.export(odd, SyntheticSet(index, x, "d"), tmp_path / "out")
    files = {p for p in tmp_path.rglob("*.png") if not p.is_relative_to(tmp_path / "images")}
    assert {p.parent.parent for p in files} == {tmp_path / "out" / "train"}
    found = folders.load(tmp_path / "out" / place)
    assert set(found.classes) == set(NAMES)
    for path, y in zip(found.table["file"], found.table["label"], strict=True):
        shown = np.asarray(Image.open(tmp_path / "out" / path))
        assert NAMES[shown[0, 0, 0]] == found.classes[y]


def test_classes_that_look_alike_are_not_exported(exp, tmp_path):
    table = pd.DataFrame({"key": ["a", "b"], "split": "train", "label": [0, 1], "context": 0})
    odd = replace(exp, bench=Benchmark(Manifest("odd", table, ("a b", "a  b")), lambda rows: None))
    made = SyntheticSet(pd.DataFrame(), torch.zeros(0, 8, 8, 3, dtype=torch.uint8), "d")
    with pytest.raises(UserError, match=r"out: classes 'a_b' and 'a__b' have one name: join or rename them"):
        own_images.export(odd, made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_weakest_classes_are_those_of_the_lowest_accuracy_then_of_fewer_images(exp):
    label = exp.bench.manifest.rows("val")["label"].to_numpy()
    assert own_images.weakest(exp, scored(np.ones(4, int)), 1) == [0]
    assert own_images.weakest(exp, scored(np.zeros(4, int)), 1) == [1]
    assert own_images.weakest(exp, scored(label), 1) == [0]
    assert own_images.weakest(exp, scored(label), 9) == [0, 1]


@pytest.mark.parametrize("given", [None, 3])
@pytest.mark.parametrize(("n", "real"), [(1, 7), (8, 4), (2000, 1)])
def test_all_three_have_equally_many_updates_on_batches_mixed_as_the_sets_are_large(exp, n, real, given):
    made = SyntheticSet(pd.DataFrame({"label": [0] * n}), torch.zeros(n, 32, 32, 3, dtype=torch.uint8), "")
    exp = replace(exp, recipe=replace(exp.recipe, updates_per_epoch=given))
    rows = own_images.controlled(exp, made, made)
    assert list(rows) == [REAL_ONLY, UNGUIDED, FG_ENTROPY]
    assert [row.synthetic for row in rows.values()] == [None, made, made]
    updates = {row.recipe.updates(8, row.synthetic is not None) for row in rows.values()}
    assert updates == {given or -(-8 // real)}
    shares = [row.recipe.real_share for row in rows.values() if row.synthetic]
    assert [round(share * exp.recipe.batch) for share in shares] == [real, real]


@pytest.fixture
def by_hand(exp):
    """Two seeds of each method on four test images: owls are helped from 0 to 100 and 50 %, foxes fall."""
    label = exp.bench.manifest.rows("test")["label"].to_numpy()
    assert label.tolist() == [0, 0, 1, 1]
    hits = {REAL_ONLY: [0, 0, 1, 1], UNGUIDED: [0, 1, 1, 1], FG_ENTROPY: [1, 1, 1, 0]}
    return {name: scored(*[np.where(hit, label, 1 - label)] * 2) for name, hit in hits.items()}


def test_every_class_is_in_the_table_those_that_fell_too(exp, by_hand):
    rows = own_images.changes(exp, by_hand, [0])
    assert rows[["class", "helped", "real", "held out"]].to_numpy().tolist() == [
        ["owl", True, 3, 2],
        ["red fox", False, 5, 2],
    ]
    assert rows[[REAL_ONLY, UNGUIDED, FG_ENTROPY]].to_numpy().tolist() == [[0, 50, 100], [100, 100, 50]]
    for other, means in ((REAL_ONLY, ["100.00", "-50.00"]), (UNGUIDED, ["50.00", "-50.00"])):
        gains = [gain.split(" ± ") for gain in rows[f"over {other}"]]
        assert [mean for mean, _ in gains] == means
        # Two images cannot be sure of anything.
        assert min(float(half) for _, half in gains) > 40


def test_the_effect_is_of_the_helped_the_others_and_all_by_paired_intervals(exp, by_hand):
    rows = own_images.effects(exp, by_hand, [0]).set_index(["method", "reference", "metric"])
    assert rows["mean"].to_dict() == {
        (FG_ENTROPY, REAL_ONLY, "helped classes"): 100, (FG_ENTROPY, REAL_ONLY, "other classes"): -50,
        (FG_ENTROPY, REAL_ONLY, "all classes"): 25, (FG_ENTROPY, UNGUIDED, "helped classes"): 50,
        (FG_ENTROPY, UNGUIDED, "other classes"): -50, (FG_ENTROPY, UNGUIDED, "all classes"): 0,
        (UNGUIDED, REAL_ONLY, "helped classes"): 50, (UNGUIDED, REAL_ONLY, "other classes"): 0,
        (UNGUIDED, REAL_ONLY, "all classes"): 25,
    }  # fmt: skip
    assert (rows["low"] <= rows["mean"]).all()
    assert (rows["mean"] <= rows["high"]).all()
    # Seeds agree, and one of two images changed: the interval is that of the images, and spans zero.
    low, high = rows.loc[(UNGUIDED, REAL_ONLY, "helped classes"), ["low", "high"]]
    assert low < 0 < 100 < high
    everything = own_images.effects(exp, by_hand, [0, 1])
    assert "other classes" not in set(everything["metric"])


def held_out(exp):
    return {split: exp.bench.manifest.counts(split).tolist() for split in ("train", "val", "test")}


@pytest.mark.parametrize("rare", [3, 4, 5, 6, 9])
def test_three_images_of_a_class_are_enough_to_help_and_report_it(tmp_path, root, monkeypatch, rare):
    monkeypatch.chdir(root)
    put(tmp_path / "few", {"train": {"cat": 20, "dog": rare}})
    exp = experiment(tmp_path / "few", tmp_path)
    assert own_images.reportable(exp).tolist() == [True, True]
    assert sum(counts[1] for counts in held_out(exp).values()) == rare
    assert own_images.held_out_plan(exp).splitlines() == [
        "2 of 2 classes can be found weak on val and reported on test.",
        "Of few test images an accuracy says little: 'cat' (2), 'dog' (1).",
    ]


def test_what_cannot_be_said_is_said_before_anything_is_computed(tmp_path, root, monkeypatch):
    monkeypatch.chdir(root)
    put(tmp_path / "few", {"train": {"cat": 60, "dog": 2, "owl": 1, "yak": 40}})
    exp = experiment(tmp_path / "few", tmp_path)
    assert held_out(exp) == {"train": [48, 1, 1, 32], "val": [6, 1, 0, 4], "test": [6, 0, 0, 4]}
    assert own_images.held_out_plan(exp).splitlines() == [
        "2 of 4 classes can be found weak on val and reported on test.",
        "Not helped, for want of images in val or in test (train + val + test): "
        "'dog' (1 + 1 + 0), 'owl' (1 + 0 + 0).",
        "Of few test images an accuracy says little: 'yak' (4).",
    ]
    label = exp.bench.manifest.rows("val")["label"].to_numpy()
    assert sorted(own_images.weakest(exp, scored(label), 4)) == [0, 3]
    right = scored(exp.bench.manifest.rows("test")["label"].to_numpy())
    by = dict.fromkeys((REAL_ONLY, UNGUIDED, FG_ENTROPY), scored(*right.predicted, *right.predicted))
    rows = own_images.changes(exp, by, [0, 3]).set_index("class")
    assert rows["held out"].to_dict() == {"cat": 6, "yak": 4, "dog": 0, "owl": 0}
    assert rows.loc["dog", [REAL_ONLY, f"over {REAL_ONLY}"]].isna().tolist() == [True, False]


def test_a_folder_of_which_nothing_could_be_said_is_refused(tmp_path, root, monkeypatch):
    monkeypatch.chdir(root)
    put(tmp_path / "few", {"train": {"cat": 40, "dog": 2}, "val": {"cat": 2}, "final": {"dog": 1}})
    exp = experiment(tmp_path / "few", tmp_path)
    assert own_images.held_split(exp) == "final"
    with pytest.raises(UserError, match="few: no class has images both in val and in final: give some in"):
        own_images.held_out_plan(exp)


def test_a_class_alone_is_refused(tmp_path):
    put(tmp_path / "one", {"train": {"cat": 9}})
    with pytest.raises(UserError, match="one has the one class 'cat': add another to tell it from"):
        own_images.benchmark(tmp_path / "one", 32)


@pytest.fixture(scope="module")
def unclip(root):
    return Generator.load(root / FOLDER, 2)


def distances(unclip, images):
    return own_images.unfamiliarity(unclip, Images(images, torch.zeros(len(images), dtype=torch.long)))


def scenes(seed, modes, draw=mini.imagenet_lt, strata=(8, 9, 7)):
    tail = LongTail(n_max=101, n_min=4, strata=strata, n_val=8, n_test=1, modes=modes, seed=seed)
    bench = draw(tail)
    return bench.images(bench.manifest.rows("val"))


def photograph_like(n):
    """Blurred colours with an edge and grain, as photographs have them: nothing that the mini world draws."""
    rng, out = np.random.default_rng(0), []
    for _ in range(n):
        rough = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize((48, 48), Image.BICUBIC)
        grey = np.asarray(rough).astype(float) + rng.normal(0, 12, (48, 48, 1))
        grey[:, rng.integers(8, 40) :] *= rng.uniform(0.4, 0.9)
        out.append(np.clip(grey, 0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(out))


def test_the_limit_is_far_from_the_mini_world_and_from_photographs(unclip):
    own = [
        scenes(1, (0.65, 0.2, 0.1, 0.05)),
        scenes(2, (1.0,)),
        scenes(3, (0.25,) * 4),
        scenes(4, (0.65, 0.2, 0.1, 0.05), mini.places_lt, (2, 3, 7)),
    ]
    assert max(distances(unclip, images) for images in own) < own_images.UNKNOWN - 0.025
    assert distances(unclip, photograph_like(192)) > own_images.UNKNOWN + 0.025


@pytest.mark.parametrize("name", ["photos", "caltech"])
def test_photographs_are_beyond_the_limit(unclip, root, name):
    files = sorted((root.parent / "shared/data" / name / "train").rglob("*.*"))
    if not files:
        pytest.skip("the photographs are not there")
    some = ImageFiles(tuple(map(str, files)), torch.zeros(len(files), dtype=torch.long))
    assert own_images.unfamiliarity(unclip, some) > own_images.UNKNOWN + 0.04


def test_photographs_stop_the_mini_generator_before_any_training(tmp_path, root, monkeypatch):
    monkeypatch.chdir(root)
    for i, image in enumerate(photograph_like(40).numpy()):
        (tmp_path / f"pets/train/{'cat' if i % 2 else 'dog'}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"pets/train/{'cat' if i % 2 else 'dog'}/{i}.png")
    exp = experiment(tmp_path / "pets", tmp_path)
    with pytest.raises(UserError, match=r"does not know the images of pets.*LatentClassifier.*fgsynth plan"):
        own_images.require_known(exp)
    assert not (tmp_path / "work").exists()
    own_images.require_known(exp, "go on")
    # Another generator is taken to know them.
    other = exp.sampling.model_copy(update={"generator": "someone/stable-unclip"})
    own_images.require_known(replace(exp, sampling=other))


def test_real_photographs_go_through_the_whole_protocol(root, tmp_path, monkeypatch):
    photos = root.parent / "shared/data/photos"
    if not photos.is_dir():
        pytest.skip("the photographs are not there")
    monkeypatch.chdir(root)
    exp = experiment(photos, tmp_path)
    assert (
        exp.bench.manifest.counts("test").tolist() == exp.bench.manifest.counts("val").tolist() == [25] * 10
    )
    before = scores(exp, {"before": Row(exp.recipe)}, [0, 1], "val")["before"]
    weak = own_images.weakest(exp, before, 2)
    each = np.zeros(10, int)
    each[weak] = 3
    made = exp.synthetic(methods(exp.sampling)[FG_ENTROPY], per_group=each)
    assert sorted(set(made.index["label"])) == sorted(weak)
    assert np.isfinite(made.index["after"]).all()
    conditions = dict(zip(made.index["condition"], made.index["label"], strict=True))
    for key, label in conditions.items():
        assert key.startswith(f"train/{exp.bench.manifest.classes[label].replace(' ', '_')}/")
    rows = own_images.controlled(exp, exp.synthetic(methods(exp.sampling)[UNGUIDED], per_group=each), made)
    held = scores(exp, rows, [0, 1], "test")
    assert np.isfinite(own_images.effects(exp, held, weak)[["mean", "low", "high"]].to_numpy()).all()
    assert own_images.changes(exp, held, weak).set_index("class")["real"]["freight car"] == 202
    assert len(own_images.export(exp, made, tmp_path / "out")) == 6


def test_a_class_of_one_image_is_taken_until_hardness_is_asked_for(tmp_path, root, monkeypatch):
    monkeypatch.chdir(root)
    put(tmp_path / "fox", {"train": {"owl": 3, "fox": 1}, "val": {"owl": 1, "fox": 1}})
    exp = experiment(tmp_path / "fox", tmp_path)
    assert exp.criterion("loss") is not exp.criterion("entropy")
    with pytest.raises(UserError, match="fox: class 'fox' has fewer than two training images"):
        exp.criterion("hardness")

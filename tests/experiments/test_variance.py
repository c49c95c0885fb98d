import subprocess
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from fgsynth.config import params
from fgsynth.config.params import Variance
from fgsynth.experiments import variance
from fgsynth.experiments.variance import METRICS, OWN, PINNED, accuracies, measure, runs, tabulate
from fgsynth.generate import compose
from fgsynth.generate.generator import Generator
from fgsynth.pretrain.files import FOLDER
from fgsynth.utils.errors import UserError

SETTINGS = Variance(worlds=2, sets=2, classifiers=2)


@pytest.fixture(scope="module")
def made(root, tmp_path_factory):
    """Both ways of rounding on tiny sets and trainings, and what computes them again."""
    point = params.load(root / "params.yaml").mini.imagenet_lt
    world = point.world.model_copy(update={"strata": (1, 1, 22), "n_val": 1, "n_test": 3})
    sampling = point.sampling.model_copy(update={"n_steps": 2, "every": 1, "fill_to": 4})
    training = point.training.model_copy(update={"epochs": 1, "updates_per_epoch": 2, "batch": 16})
    point = point.model_copy(update={"world": world, "sampling": sampling, "training": training})
    generator, work = Generator.load(root / FOLDER, 2), tmp_path_factory.mktemp("variance")

    def of(rounding):
        return runs(SETTINGS, point, generator, work, rounding)

    return of, {**of(OWN), **of(PINNED)}, work


def test_portable_trainings_are_others_on_the_sets_that_are_there(made, monkeypatch):
    of, found, work = made
    assert len(list((work / "imagenet_lt" / "synthetic").iterdir())) == 2 * 2 * 2
    # Per set and method two classifiers, the first set's of every world twice; one guide per set.
    count = {
        name: len(list((work / name / "imagenet_lt" / "classifiers").iterdir())) for name in (OWN, PINNED)
    }
    assert count == {OWN: 2 * 2 * 2 * 3, PINNED: 2 * 2 * 3}
    assert len(list((work / "imagenet_lt" / "classifiers").iterdir())) == 2 * 2
    for (world, number, rounding, method), (bench, predicted) in found.items():
        assert predicted.shape == (2, len(bench.manifest.rows("test")))
        if rounding == PINNED:  # here both round alike
            assert (predicted == found[world, number, OWN, method][1]).all()

    monkeypatch.setattr(compose, "synthesise", None)
    monkeypatch.setattr("fgsynth.train.train._run", None)
    again = of(OWN)
    assert all((again[key][1] == found[key][1]).all() for key in again)


def test_components_are_of_paired_differences(made):
    _, found, _ = made
    rows = accuracies(found)
    assert len(rows) == len(found) * 2 * len(METRICS)
    table = tabulate(rows, found)
    assert len(table) == 2 * len(METRICS) * 5
    few = table[table["metric"] == "few"].set_index(["method", "source"])
    assert few.xs("rounding", level="source")["sd"].tolist() == [0, 0]
    assert few.xs("world", level="source")["df"].tolist() == [1, 1]
    wide = rows[(rows["metric"] == "few") & (rows["rounding"] == OWN)].pivot_table("value", columns="method")
    first = few.loc["LDM (txt, img, dropout)", "mean"].iloc[0]
    assert first == pytest.approx((wide["LDM (txt, img, dropout)"] - wide["Balanced Softmax"]).item())


def test_what_images_add_is_the_binomials_where_all_classifiers_are_alike(made):
    _, found, _ = made
    bench = next(iter(found.values()))[0]
    rng, label = np.random.default_rng(0), np.arange(24).repeat(200)
    alike = SimpleNamespace(
        manifest=SimpleNamespace(rows=lambda _: pd.DataFrame({"label": label}), counts=bench.manifest.counts)
    )
    hit = np.tile(np.where(rng.random(len(label)) < 0.5, label, -1), (2, 1))
    given = {(0, 0, OWN, "a"): (alike, hit), (0, 0, OWN, "b"): (alike, np.full_like(hit, -1))}
    assert variance._images(given, "a", "b", "overall") == pytest.approx(50 / np.sqrt(len(label)), rel=0.03)


def test_a_processor_that_rounds_as_the_portable_mode_does_is_refused(root, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(params, "load", None)
    with pytest.raises(UserError, match="take one with AVX-512"):
        measure(root)


def test_the_other_rounding_is_another_process_which_writes_nothing(root, tmp_path, made, monkeypatch):
    _, found, _ = made
    asked = []

    def part(_settings, _point, _generator, _work, rounding):
        asked.append(rounding)
        return {key: value for key, value in found.items() if key[2] == rounding}

    monkeypatch.setattr(variance, "runs", part)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(subprocess, "run", lambda *_, **more: asked.append(more["env"]["FGSYNTH_PORTABLE"]))
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    (tmp_path / FOLDER).parent.mkdir(parents=True)
    (tmp_path / FOLDER).symlink_to(root / FOLDER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FGSYNTH_PORTABLE", "1")
    measure(tmp_path)
    assert asked == [PINNED]
    assert not (tmp_path / "reports").exists()

    monkeypatch.delenv("FGSYNTH_PORTABLE")
    measure(tmp_path)
    assert asked == [PINNED, OWN, "1", PINNED]
    written = {path.name: pd.read_csv(path) for path in (tmp_path / "reports" / "variance").iterdir()}
    assert len(written["rows.csv"]) == len(accuracies(found))
    assert list(written["components.csv"]) == [
        "method",
        "reference",
        "metric",
        "mean",
        "source",
        "sd",
        "df",
        "p",
    ]

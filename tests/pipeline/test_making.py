import pytest
from dvc.utils.serialize import dump_yaml

from fgsynth.config.blocks import read
from fgsynth.config.params import load
from fgsynth.experiments import experiment
from fgsynth.experiments.build import of_world
from fgsynth.generate.engines import Engine
from fgsynth.generate.methods import methods
from fgsynth.pipeline import making
from fgsynth.utils.errors import UserError


@pytest.fixture
def block(root, tmp_path, monkeypatch):
    """A project whose Places-LT mini is made in seconds; the parameters of its stage."""
    raw = read(root / "params.yaml")
    block = raw["mini"]["places_lt"]
    block["world"] = {"n_max": 110, "n_val": 5, "n_test": 10}
    block["sampling"] = {"n_steps": 3, "every": 2, "fill_to": 6, "per_shard": 10}
    block["training"] = {"epochs": 1, "updates_per_epoch": 2, "batch": 8}
    dump_yaml(tmp_path / "params.yaml", raw)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/pretrained").symlink_to(root / "data/pretrained")
    monkeypatch.chdir(tmp_path)
    return load(tmp_path / "params.yaml").overrides("places_lt")


def found(block):
    """The sets of the stage as its notebook loads them."""
    exp = of_world("places_lt", block["world"], block["sampling"], block["training"], block["work"])
    ways = methods(exp.sampling)
    return {name: exp.synthetic(way) for name, way in ways.items() if name != "LDM-FG (Combined)"}


def test_a_notebook_finds_all_sets_made(block, monkeypatch):
    told = making.run("places_lt").splitlines()
    monkeypatch.setattr(experiment, "make_images", lambda *_, **__: pytest.fail("made again"))
    sets = found(block)
    assert [line.split(":")[0] for line in told] == list(sets)
    assert all(
        f": {len(made.index)} images in" in line for line, made in zip(told, sets.values(), strict=True)
    )


def test_workers_need_the_guide_and_then_share_the_shards(block, monkeypatch):
    both = [Engine(worker=i, workers=2) for i in (0, 1)]
    with pytest.raises(UserError, match="run 'python -m fgsynth synthesise places_lt --guide' first"):
        making.run("places_lt", both[0])
    assert making.run("places_lt", guide_only=True) == "The guide of places_lt is trained."
    for engine in both:
        making.run("places_lt", engine)
    monkeypatch.setattr(experiment, "make_images", lambda *_, **__: pytest.fail("made again"))
    assert len(found(block)) == 6


def test_a_stage_without_sets_and_the_scale_smoke_are_refused(block, tmp_path):
    with pytest.raises(UserError, match="No synthetic sets are planned for 'toy_2d'"):
        making.run("toy_2d")
    path = tmp_path / "params.yaml"
    path.write_text(path.read_text().replace("scale: mini", "scale: smoke"))
    with pytest.raises(UserError, match="Scale 'smoke' lives in the notebooks' own cells"):
        making.run("places_lt")

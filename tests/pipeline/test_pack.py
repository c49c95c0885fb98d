import io
import tarfile

import pandas as pd
import pytest
from dvc.utils.serialize import dump_yaml
from PIL import Image

from fgsynth.config.blocks import read
from fgsynth.config.names import FG_ENTROPY, UNGUIDED
from fgsynth.config.params import load
from fgsynth.experiments import steps
from fgsynth.generate.methods import methods
from fgsynth.pipeline import pack
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import file_name


@pytest.fixture
def exp(root, tmp_path, monkeypatch):
    """A project whose Places-LT mini is made in seconds, two classifiers of it trained."""
    raw = read(root / "params.yaml")
    block = raw["mini"]["places_lt"]
    block["world"] = {"n_max": 110, "n_val": 5, "n_test": 10}
    block["sampling"] = {"n_steps": 3, "every": 2, "fill_to": 6, "per_shard": 10}
    block["training"] = {"epochs": 1, "updates_per_epoch": 2, "batch": 8}
    block |= {"extends": "places_lt"}
    dump_yaml(tmp_path / "params.yaml", raw)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/pretrained").symlink_to(root / "data/pretrained")
    (tmp_path / "reports").mkdir()
    for name in pack.REPORTS:
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    # Another world than the one whose digest is written down.
    monkeypatch.setattr(steps, "verify", lambda *_: None)
    values = load(tmp_path / "params.yaml").overrides("places_lt")
    exp = steps.load("places_lt", "mini", *(values[k] for k in ("world", "sampling", "training", "work")))
    exp.trainings.train(exp.recipe, 3, exp.synthetic(methods(exp.sampling)[FG_ENTROPY]))
    exp.trainings.train(exp.recipe, 4)
    # Of images that the notebook does not make.
    exp.trainings.train(exp.recipe, 5, exp.synthetic(methods(exp.sampling)[FG_ENTROPY], 2.0))
    return exp


def test_the_archive_holds_sets_classifiers_ledger_and_a_datasheet(exp, tmp_path):
    told = pack.run(["places_lt"], None, tmp_path / "out")
    archive = tmp_path / "out" / "fgsynth-mini.tar"
    with tarfile.open(archive) as tar:
        held = {member.name: tar.extractfile(member).read() for member in tar}
    assert held["ledger.csv"] == b"reports/ledger.csv"
    sheet = held["DATASHEET.md"].decode()
    # The guide is a classifier of real images alone, too.
    lines = [
        f"places_lt: classifier on {FG_ENTROPY}, seed 3",
        f"places_lt: classifier on {pack.REAL}, seed 4",
    ]
    assert all(f"- {line}\n" in sheet and line in told for line in lines)
    assert "seed 5" not in sheet
    made = exp.synthetic(methods(exp.sampling)[UNGUIDED])
    folder = f"places_lt/sets/{file_name(UNGUIDED)}"
    index = pd.read_parquet(io.BytesIO(held[f"{folder}/00000.parquet"]))
    assert index["key"].tolist() == made.index["key"].tolist()[:10]
    with tarfile.open(fileobj=io.BytesIO(held[f"{folder}/00000.tar"])) as shard:
        image = Image.open(shard.extractfile(f"{index['key'][0]}.png"))
    assert (made.images.x[0].numpy() == image).all()
    (weights,) = [
        name for name in held
        if name.endswith(".safetensors") and name.startswith(f"places_lt/classifiers/{file_name(FG_ENTROPY)}")
    ]  # fmt: skip
    network = exp.trainings.folder(exp.recipe, 3, exp.synthetic(methods(exp.sampling)[FG_ENTROPY]))
    assert held[weights] == (network / "network.safetensors").read_bytes()
    first = archive.read_bytes()
    pack.run(["places_lt"], None, tmp_path / "out")
    assert archive.read_bytes() == first


def test_what_makes_no_sets_and_scale_smoke_are_refused(exp, tmp_path):
    with pytest.raises(UserError, match="'toy_2d' makes no synthetic sets"):
        pack.run(["toy_2d"], None, tmp_path)
    with pytest.raises(UserError, match="Scale 'smoke' lives in the notebooks' own cells"):
        pack.run([], "smoke", tmp_path)

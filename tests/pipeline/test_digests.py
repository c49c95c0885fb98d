import json
import shutil

import pytest
from dvc.utils.serialize import dump_yaml

from fgsynth.config.blocks import read
from fgsynth.config.params import load
from fgsynth.data import mini
from fgsynth.data.benchmark import DIGESTS, verify
from fgsynth.data.registry import WORLDS
from fgsynth.pipeline import commands as cli
from fgsynth.pipeline import digests
from fgsynth.utils.errors import UserError


def test_the_committed_digests_are_those_of_the_parameters(root):
    assert (root / DIGESTS).read_text() == digests.digests(root), "run 'python -m fgsynth manifests'"


def test_every_benchmark_has_a_digest_of_its_own_at_every_scale(root):
    known = json.loads((root / DIGESTS).read_text())
    assert set(known) == set(WORLDS)
    assert all(set(scales) == {"smoke", "mini", "evening"} for scales in known.values())
    every = [digest for scales in known.values() for digest in scales.values()]
    assert len(set(every)) == len(every)


def test_a_run_of_another_world_than_written_down_is_refused(root):
    world = load(root / "params.yaml").mini.nicopp.world
    verify(mini.nicopp(world).manifest, root / DIGESTS, "mini")
    other = mini.nicopp(world.model_copy(update={"seed": 1})).manifest
    with pytest.raises(UserError, match=r"nicopp at scale mini has digest .*'python -m fgsynth manifests'"):
        verify(other, root / DIGESTS, "mini")


def test_the_command_writes_what_the_parameters_say(root, tmp_path, monkeypatch):
    shutil.copytree(root / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns("scratch"))
    (tmp_path / "dvc.yaml").touch()
    raw = read(root / "params.yaml")
    raw["mini"]["blocks"]["places_lt_world"]["n_val"] += 1
    dump_yaml(tmp_path / "params.yaml", raw)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["manifests"]) == 0
    text = (tmp_path / DIGESTS).read_text()
    made, known = json.loads(text), json.loads((root / DIGESTS).read_text())
    assert text == json.dumps(made, indent=2, sort_keys=True) + "\n"
    changed = {(b, s) for b, scales in known.items() for s in scales if made[b][s] != known[b][s]}
    assert changed == {("places_lt", "mini")}

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from tiny_makers import Cheap

from fgsynth.generate import ray
from fgsynth.generate.engines import Engine, fill
from fgsynth.generate.pieces import PIECES
from fgsynth.generate.store import Store
from fgsynth.utils.errors import UserError
from fgsynth.utils.interrupts import Stopped
from tests.generate.test_store import content, make, plan, written


@pytest.fixture
def whole(tmp_path):
    """As the store fills itself."""
    made = Store(tmp_path / "whole", plan(30), per_shard=8)
    written(made)
    return content(made.folder)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", plan(30), per_shard=8)


@pytest.fixture
def cheap(tmp_path):
    (tmp_path / "log").mkdir()
    return Cheap(tmp_path / "log")


def test_the_local_engine_makes_every_image_once_and_the_same_bytes(store, whole, cheap):
    assert fill(store, cheap, piece=3) == 30
    assert content(store.folder) == whole
    assert cheap.keys() == store.plan["key"].tolist()


def test_a_whole_store_needs_no_generator(store, whole, cheap):
    fill(store, cheap)
    assert fill(store, lambda: pytest.fail("loaded")) == 0
    assert content(store.folder) == whole


def test_only_damaged_shards_are_made_again(store, whole, cheap):
    fill(store, lambda: make)
    store.files(2)[0].unlink()
    assert fill(store, cheap, piece=3) == 8
    assert cheap.keys() == store.rows(2)["key"].tolist()
    assert content(store.folder) == whole


def test_processes_share_a_store(store, whole):
    with ThreadPoolExecutor(3) as pool:
        engines = [Engine(worker=i, workers=3) for i in range(3)]
        made = [pool.submit(fill, store, lambda: make, engine=engine, piece=3) for engine in engines]
    assert [m.result() for m in made] == [14, 8, 8]
    assert {p.name: p.read_bytes() for p in store.folder.iterdir() if p.is_file()} == whole


def test_a_request_to_stop_is_granted_after_the_piece_and_nothing_is_lost(store, whole, cheap):
    def asks(rows):
        if store.plan["key"][12] in set(rows["key"]):
            os.kill(os.getpid(), signal.SIGTERM)
        return cheap.make(rows)

    with pytest.raises(Stopped, match=r"with 14 of 30 images of .*store kept: give the same command again"):
        fill(store, lambda: asks, piece=3)
    assert (store.folder / PIECES / "00001").is_dir()
    assert fill(store, cheap, piece=3) == 16
    assert cheap.keys() == store.plan["key"].tolist()
    assert content(store.folder) == whole


STOPPED = """
import sys
from pathlib import Path
sys.path[:0] = ["tests", "tests/generate"]
from test_store import plan
from tiny_makers import Cheap
from fgsynth.generate.engines import fill
from fgsynth.generate.store import Store
from fgsynth.utils.interrupts import Stopped

try:
    fill(Store(Path(sys.argv[1]), plan(400), 100), Cheap(Path(sys.argv[2]), 0.05), piece=10)
except Stopped as stopped:
    print(stopped)
"""


def test_a_process_that_slurm_terminates_ends_well_and_goes_on(tmp_path, root, listening):
    log, folder = tmp_path / "log", tmp_path / "store"
    log.mkdir()
    rest, kept = Cheap(log), []
    for number in (signal.SIGTERM, signal.SIGINT):
        command = [sys.executable, "-c", STOPPED, folder, log]
        run = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True, preexec_fn=listening)
        before = len(rest.keys())
        while len(rest.keys()) < before + 20:
            assert run.poll() is None
        run.send_signal(number)
        out, _ = run.communicate()
        assert run.returncode == 0
        assert out.startswith("Stopped, with")
        kept.append(len(rest.keys()))
    store = Store(folder, plan(400), 100)
    assert fill(store, rest, piece=10) == 400 - kept[-1] > 0
    assert sorted(rest.keys()) == sorted(store.plan["key"])
    assert store.todo() == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (dict(name="dask"), "'name' is 'dask': input should be 'local' or 'ray'"),
        (dict(worker=2, workers=2), "Worker 2 of 2: workers count from 0"),
        (dict(name="ray", workers=2), "'ray' shares the work out itself"),
        (dict(name="ray", actors=0), "'actors' is 0: input should be greater"),
        (dict(price=-1.0), "'price' is -1.0: input should be greater than or equal to 0"),
        (dict(actors=2), "no effect on the engine 'local'"),
        (dict(address="auto"), "no effect on the engine 'local'"),
    ],
)
def test_unfit_settings_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        Engine(**settings)


def test_a_piece_holds_an_image(store):
    with pytest.raises(UserError, match="'piece' is 0"):
        fill(store, lambda: make, piece=0)


def test_without_ray_there_is_a_sentence(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        UserError, match=r"needs Ray, which is not installed: run 'pip install \.\[cluster\]'"
    ):
        fill(store, lambda: make, engine=Engine("ray"))


def test_the_engines_need_neither_torch_nor_ray_to_start(root):
    code = "import sys, fgsynth.generate.engines; sys.exit(bool({'torch', 'ray'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
    assert ray.TRIES == 3

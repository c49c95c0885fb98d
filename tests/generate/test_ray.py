import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_makers import Cheap, Unclip
from tiny_unclip import save

from fgsynth.generate import ray as cluster
from fgsynth.generate.engines import Engine, fill
from fgsynth.generate.pieces import PIECES
from fgsynth.generate.store import Store
from fgsynth.generate.throughput import Speed
from fgsynth.utils.errors import UserError
from fgsynth.utils.interrupts import Stopped
from tests.generate.test_store import content, make, plan, written

ray = pytest.importorskip("ray")
from ray.exceptions import ActorDiedError, RayTaskError  # noqa: E402

RAY = Engine("ray")


class Died(BaseException):
    """What a stand-in worker dies of."""


@dataclass
class Call:
    """A call of an actor's method, done when its result is asked for."""

    actor: "Actor"
    name: str
    arguments: tuple = ()

    def remote(self, *arguments):
        return Call(self.actor, self.name, arguments)

    __hash__ = object.__hash__
    __eq__ = object.__eq__


class Actor:
    def __init__(self, it):
        self.it = it

    def __getattr__(self, name):
        return Call(self, name)


class Here:
    """Stands for Ray in this process, where only the order of things matters: calls are done in turn."""

    def __init__(self, cores=2, starts=True):
        self.cores, self.starts, self.killed = cores, starts, []

    def cluster_resources(self):
        return {"CPU": float(self.cores)}

    def is_initialized(self):
        return True

    def get_runtime_context(self):
        return self

    def get_accelerator_ids(self):
        return {}

    def get_node_id(self):
        return "here"

    def put(self, value):
        return value

    def remote(self, **options):
        assert options == {"num_cpus": 1}
        return lambda kind: SimpleNamespace(remote=lambda *given: Actor(kind(*given)))

    def wait(self, calls, timeout):
        return (calls[:1], calls[1:]) if self.starts else ([], calls)

    def get(self, call):
        try:
            return getattr(call.actor.it, call.name)(*call.arguments)
        except Died as error:
            raise ActorDiedError() from error
        except Exception as error:
            raise RayTaskError(call.name, "", error) from None

    def kill(self, actor):
        self.killed.append(actor)


@pytest.fixture
def here(monkeypatch):
    made = Here()
    monkeypatch.setattr(cluster, "_ray", lambda: made)
    return made


@pytest.fixture(scope="module")
def nodes(root):
    """A Ray cluster of two nodes of one core each, on this machine; the driver is on the first."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets' paths must be short
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "PYTHONPATH", os.pathsep.join(str(root / part) for part in ("", "tests", "tests/generate"))
        )
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", folder)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        made.add_node(num_cpus=1)
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        yield made
        ray.shutdown()
        made.shutdown()
    signal.signal(signal.SIGTERM, handler)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def store(tmp_path):
    """Five shards."""
    return Store(tmp_path / "store", plan(90), per_shard=20)


@pytest.fixture
def calm(tmp_path):
    """What an undisturbed run on one machine leaves."""
    made = Store(tmp_path / "calm", plan(90), per_shard=20)
    written(made)
    return content(made.folder)


@pytest.fixture
def log(tmp_path):
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


def test_a_tiny_unclip_makes_the_same_bits_on_ray_as_here(nodes, tmp_path):
    import torch

    threads, maker = torch.get_num_threads(), Unclip(save(tmp_path / "unclip"))
    made = [Store(tmp_path / name, plan(6), per_shard=3) for name in ("here", "there")]
    fill(made[0], maker, piece=2)
    torch.set_num_threads(threads)
    assert fill(made[1], maker, engine=RAY, piece=2) == 6
    assert content(made[1].folder) == content(made[0].folder)
    index = made[1].index()
    assert index[["before", "after"]].notna().all(axis=None)
    assert index["sha256"].is_unique


def test_a_node_killed_in_the_middle_costs_its_piece_in_the_making_and_nothing_else(nodes, store, calm, log):
    """Also that two nodes share the work, and that the bytes are those of one machine."""
    maker, lost = Cheap(log, pause=0.15), next(iter(nodes.worker_nodes))

    def kill():
        while len(maker.made()) < 2 or min(map(len, maker.made().values())) < 10:
            time.sleep(0.01)
        nodes.remove_node(lost, allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    fill(store, maker, engine=RAY, piece=5)
    killer.join()
    assert content(store.folder) == calm
    assert set(maker.keys()) == set(store.plan["key"])
    assert len(maker.keys()) - 90 in (0, 5), "more than a piece was made again"
    fewer, more = sorted(map(len, maker.made().values()))
    assert 10 <= fewer < 45 < more, "the node was killed too late"


def test_actors_share_the_shards_and_make_the_same_bytes(here, store, calm):
    loaded = []

    def maker():
        loaded.append([])
        return lambda rows, mine=loaded[-1]: (mine.extend(rows["key"]), make(rows))[1]

    assert fill(store, maker, engine=RAY, piece=5) == 90
    assert sorted(map(len, loaded)) == [40, 50]
    assert {*loaded[0], *loaded[1]} == set(store.plan["key"])
    assert content(store.folder) == calm
    assert fill(store, lambda: pytest.fail("loaded"), engine=RAY, piece=5) == 0
    assert len(here.killed) == 4, "actors outlived their run"


def dies_at(key, log):
    """A maker of workers that die of an image, and all keys they were asked for."""

    def deadly(rows):
        log.extend(rows["key"])
        if key in set(rows["key"]):
            raise Died
        return make(rows)

    return lambda: deadly


def test_a_shard_that_kills_its_workers_is_named_when_all_others_are_there(here, store, calm):
    key, made = store.rows(1)["key"][7], []
    with pytest.raises(
        UserError, match=r"Shard .*store/00001\.tar took 3 workers with it \(last ActorDiedError: .*; remove"
    ):
        fill(store, dies_at(key, made), engine=RAY, piece=5)
    assert store.todo() == [1]
    assert made.count(key) == 3
    assert fill(store, lambda: make, engine=RAY, piece=5) == 15, "the first piece was not kept"
    assert content(store.folder) == calm


def test_a_worker_that_fails_once_costs_nothing_but_its_piece(here, store, calm):
    """An error that is no sentence for the user: of CUDA, say."""
    failed = []

    def fails(rows):
        if not failed and store.rows(1)["key"][7] in set(rows["key"]):
            failed.append(1)
            raise RuntimeError("CUDA error: unspecified launch failure")
        return make(rows)

    assert fill(store, lambda: fails, engine=RAY, piece=5) == 90
    assert content(store.folder) == calm
    assert failed


def test_what_a_worker_has_to_say_to_the_user_is_one_sentence(here, store, log):
    wrong = store.rows(2)["key"][0]
    with pytest.raises(UserError) as raised:
        fill(store, Cheap(log, wrong=wrong), engine=RAY, piece=20)
    assert str(raised.value) == "The guide knows other classes: train it anew."


def test_a_request_to_stop_keeps_every_piece_and_a_new_run_goes_on(here, store, calm):
    made = []

    def asks(rows):
        made.extend(rows["key"])
        if len(made) == 30:
            os.kill(os.getpid(), signal.SIGTERM)
        return make(rows)

    with pytest.raises(Stopped, match=r"with 35 of 90 images of .*store kept"):
        fill(store, lambda: asks, engine=RAY, piece=5)
    assert len(made) == 35, "the other actor's piece was finished, and no new one begun"
    assert (store.folder / PIECES).is_dir()
    assert fill(store, lambda: asks, engine=RAY, piece=5) == 55
    assert sorted(made) == sorted(store.plan["key"])
    assert content(store.folder) == calm


def test_without_a_worker_there_is_a_sentence(here, store):
    here.starts = False
    with pytest.raises(UserError, match="No Ray worker was fit for work for 0 minutes: look at 'ray status'"):
        cluster.fill(store, lambda: make, Speed(90, "images"), 5, wait=0.0)


def test_workers_that_do_not_find_the_folder_are_no_workers(here, store, monkeypatch):
    monkeypatch.setattr(cluster.Path, "cwd", lambda: Path("/nowhere"))
    with pytest.raises(
        UserError, match=r"Ray workers do not start \(FileNotFoundError: .*nowhere.*same path"
    ):
        fill(store, lambda: make, engine=RAY)


def test_a_place_where_workers_die_gets_no_more_work(here, store):
    kind = here.remote(num_cpus=1)(cluster.Worker)
    pool = cluster._Pool(here, kind, [store, None, 5, ""], 1, store, Speed(90, "images"))
    broken = ("node", ("3",))
    for number in range(cluster.UNFIT):
        actor = Actor(None)
        pool.admit(actor, broken)
        assert pool.idle.pop() is actor
        pool.lose(actor, number % 5, "RuntimeError: CUDA error\nmore")
    pool.admit(Actor(None), broken)
    assert not pool.idle
    pool.admit(Actor(None), ("node", ("4",)))
    assert len(pool.idle) == 1
    assert not pool.given_up
    assert set(pool.queue) == {0, 1, 2, 3, 4}


def test_a_cluster_that_does_not_answer_is_a_sentence(monkeypatch, store):
    def refuses(**settings):
        raise ConnectionError(f"no answer from {settings['address']}\nlong story")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuses)
    with pytest.raises(UserError, match=r"No Ray cluster at 'a:1' \(no answer from a:1\): start one"):
        fill(store, lambda: make, engine=Engine("ray", address="a:1"))


STUBS = {
    "scontrol": 'if [ "$1" = show ]; then printf "a\\nb\\n"; else echo "scontrol $*" >>"$LOG"; fi',
    "srun": 'while [[ $1 == --* ]]; do echo "srun $1" >>"$LOG"; shift; done; exec "$@"',
    "hostname": "echo 10.0.0.1 10.0.0.2",
    "ray": 'echo "ray $*" >>"$LOG"; exec sleep 60',
    "python": "exit 0",
}
COMMAND = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit({code})); {then}"


@pytest.fixture
def slurm(tmp_path, root):
    """Starts the batch script among stand-ins of Slurm and Ray: the process and their log."""
    bin_, log = tmp_path / "bin", tmp_path / "log"
    bin_.mkdir()
    log.touch()
    for name, line in STUBS.items():
        (bin_ / name).write_text(f"#!/bin/bash\n{line}\n")
        (bin_ / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "20007", "SLURM_JOB_NODELIST": "[a-b]", "USER": "me", "LOG": str(log)}
    job["PATH"] = f"{bin_}:{os.environ['PATH']}"

    def start(code, then):
        command = [
            "bash",
            root / "tools/ray.sbatch",
            sys.executable,
            "-c",
            COMMAND.format(code=code, then=then),
        ]
        return subprocess.Popen(command, env=os.environ | job, stdout=subprocess.PIPE, text=True), log

    return start


@pytest.mark.parametrize(("code", "queued"), [(0, True), (3, False)])
def test_a_job_that_slurm_stops_is_queued_again_unless_it_failed(slurm, code, queued):
    run, log = slurm(code, "print(1, flush=True); time.sleep(60)")
    assert run.stdout.readline() == "1\n"
    for _ in range(1000):  # the services start beside the command
        if log.read_text().count("ray start") == 2:
            break
        time.sleep(0.01)
    run.terminate()
    assert run.wait(20) == code
    said = log.read_text()
    assert ("scontrol requeue 20007" in said) is queued
    assert "ray start --head --node-ip-address=10.0.0.1 --port=20007" in said
    assert "ray start --address=10.0.0.1:20007 --block" in said
    assert {"srun --exclude=a", "srun --nodelist=a", "srun --nodes=1"} <= set(said.splitlines())


def test_a_command_that_ends_before_the_script_looks_keeps_its_status(slurm, monkeypatch, tmp_path):
    slow = tmp_path / "slow"
    slow.write_text("trap '[[ $BASH_COMMAND != kill* ]] || sleep 0.5' DEBUG\n")
    monkeypatch.setenv("BASH_ENV", str(slow))
    run, log = slurm(3, "print(1, flush=True); time.sleep(60)")
    assert run.stdout.readline() == "1\n"
    time.sleep(0.2)  # the script waits by now
    run.terminate()
    assert run.wait(20) == 3
    assert "requeue" not in log.read_text()


@pytest.mark.parametrize("code", [0, 4])
def test_a_job_that_ends_by_itself_is_not_queued_again(slurm, code):
    run, log = slurm(0, f"sys.exit({code})")
    assert run.wait(20) == code
    assert "requeue" not in log.read_text()

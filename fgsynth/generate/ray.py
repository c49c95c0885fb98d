"""The Ray engine: actors with a generator each take shards from one queue; those of lost ones go back."""

import contextlib
import importlib
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fgsynth.generate.pieces import Maker, Step, clear, landmark, missing, steps
from fgsynth.generate.store import Make, Store
from fgsynth.generate.throughput import Speed
from fgsynth.utils.errors import UserError
from fgsynth.utils.interrupts import Stopped, listening, say

TRIES = 3
"""Workers that a shard may take with it before it is given up."""
UNFIT = 2 * TRIES
"""Workers lost at one place, none of which kept a piece, before it gets no more work: a broken GPU."""
START = 600.0
"""Seconds to wait for a worker that can work, at the beginning and after all are lost."""
POLL = 0.5
"""Seconds after which a request to stop is noticed."""

Place = tuple[str, tuple[str, ...]]
"""Node and GPUs of a worker."""


class Worker:
    """An actor: fills shards of a store on its node, with the generator that `maker` loads there.

    It runs in `home`, the folder of the driver, which must be at the same path on every node.
    """

    def __init__(self, store: Store, maker: Maker, piece: int, home: str) -> None:
        self.store, self.maker, self.piece, self.home = store, maker, piece, home
        self._make: Make | None = None
        self._at: tuple[int, Iterator[Step]] = (-1, iter(()))

    def ready(self) -> Place:
        """Where the worker is, once it is there. Raises OSError where the folder is not."""
        os.chdir(self.home)
        context = _ray().get_runtime_context()
        gpus = context.get_accelerator_ids().get("GPU", [])
        return context.get_node_id(), tuple(gpus)

    def step(self, number: int) -> Step | None:
        """Make the next piece of a shard, from the first that is not there; None when the shard is."""
        if number != self._at[0]:
            self._at = (number, self._steps(number))
        return next(self._at[1], None)

    def _steps(self, number: int) -> Iterator[Step]:
        if not missing(self.store, number):
            clear(self.store, number)
            yield Step(len(self.store.rows(number)), 0)
            return
        if self._make is None:
            self._make = self.maker()
        yield from steps(self.store, number, self._make, self.piece)


def fill(
    store: Store,
    maker: Maker,
    speed: Speed,
    piece: int,
    actors: int | None = None,
    address: str | None = None,
    wait: float = START,
) -> None:
    """Make the images that a store lacks on a Ray cluster: an actor per GPU, or per core where there is none.

    The actors read every byte of finished shards. A lost worker or node costs the piece in the making; its
    shard is queued again. `wait`: seconds without any worker before giving up. Raises Stopped after SIGTERM
    or SIGINT, when all have kept their piece; UserError without Ray, cluster or workers, for that of a worker
    and, when all others are done, for a shard that took TRIES workers with it.
    """
    ray = _ray()
    with _connected(ray, address), listening() as stop_requested:
        kind = "GPU" if ray.cluster_resources().get("GPU", 0) else "CPU"
        room = int(ray.cluster_resources().get(kind, 0))
        count = max(1, min(actors or room, len(store.parts())))
        options = {"num_gpus": 1} if kind == "GPU" else {"num_cpus": 1}
        given = [ray.put(store), maker, piece, str(Path.cwd())]
        pool = _Pool(ray, ray.remote(**options)(Worker), given, count, store, speed)
        try:
            pool.work(stop_requested, wait)
        finally:
            pool.end_workers()


class _Pool:
    """The actors of a run, the queue of shards, and who has which; `at` holds the pending calls."""

    def __init__(self, ray: Any, kind: Any, given: list[Any], count: int, store: Store, speed: Speed) -> None:
        self.ray, self.kind, self.given, self.count = ray, kind, given, count
        self.store, self.speed = store, speed
        self.queue = deque(range(len(store.parts())))
        self.at: dict[Any, tuple[Any, int | None]] = {}
        self.places: dict[Any, Place] = {}
        self.idle: list[Any] = []
        self.tries: Counter[int] = Counter()
        self.strikes: Counter[Place] = Counter()
        self.false_starts = 0
        self.given_up: dict[int, str] = {}
        for _ in range(count):
            self.start_worker()

    @property
    def busy(self) -> bool:
        """Whether a shard is in the making."""
        return any(number is not None for _, number in self.at.values())

    def start_worker(self) -> None:
        """Start one more actor; it gets work when it reports where it is."""
        actor = self.kind.remote(*self.given)
        self.at[actor.ready.remote()] = (actor, None)

    def end_workers(self) -> None:
        """End all actors."""
        for actor in {*self.places, *(actor for actor, _ in self.at.values())}:
            self.ray.kill(actor)

    def work(self, stop_requested: Callable[[], bool], wait: float) -> None:
        """Run until no shard is left, or until all workers have stopped on request."""
        last = time.monotonic()
        while self.queue or self.busy:
            # A worker that waits for the file system is not waited for.
            if stop_requested() and not (self.busy and landmark(self.store).is_file()):
                raise Stopped(self.speed.stopped(self.store.folder))
            while self.idle and self.queue and not stop_requested():
                self.send(self.idle.pop(), self.queue.popleft())
            self.collect(stop_requested)
            last = time.monotonic() if self.idle or self.busy else last
            if time.monotonic() - last > wait:
                raise UserError(
                    f"No Ray worker was fit for work for {wait / 60:g} minutes: look at 'ray status' for "
                    "free GPUs and lost nodes, then give the same command again."
                )
        if self.given_up:
            raise UserError(self._lost())

    def send(self, actor: Any, number: int) -> None:
        """Have an actor make the next piece of a shard."""
        self.at[actor.step.remote(number)] = (actor, number)

    def collect(self, stop_requested: Callable[[], bool]) -> None:
        """Handle the calls that returned or failed."""
        errors = importlib.import_module("ray.exceptions")
        if not self.at:
            time.sleep(POLL)  # all are unfit: `work` raises
            return
        for done in self.ray.wait(list(self.at), timeout=POLL)[0]:
            actor, number = self.at.pop(done)
            try:
                result = self.ray.get(done)
            except errors.RayTaskError as error:
                if isinstance(error.cause, UserError):
                    raise UserError(str(error.cause)) from error
                self.lose(actor, number, f"{type(error.cause).__name__}: {error.cause}")
            except errors.RayError as error:
                self.lose(actor, number, f"{type(error).__name__}: {error}")
            else:
                self.admit(actor, result) if number is None else self.take(
                    actor, number, result, stop_requested()
                )
        self.speed.workers = len(self.places)

    def admit(self, actor: Any, place: Place) -> None:
        """Take a new actor into the pool; where too many were lost it gets no work and keeps others away."""
        self.places[actor], self.false_starts = place, 0
        if self.strikes[place] < UNFIT:
            self.idle.append(actor)

    def take(self, actor: Any, number: int, step: Step | None, stop: bool) -> None:
        """Handle a finished step of a shard; None after the last one."""
        if step is not None:
            self.speed.update(number, step)
            if step.made:
                self.strikes[self.places[actor]] = 0
            if not stop:
                return self.send(actor, number)
            self.queue.appendleft(number)
        return self.idle.append(actor)

    def lose(self, actor: Any, number: int | None, reason: str) -> None:
        """Replace a worker that is lost or unreliable, and queue its shard again."""
        self.ray.kill(actor)
        reason = " ".join(reason.split("\n")[0].split())
        if number is None:
            self.false_starts += 1
            if self.false_starts >= TRIES * self.count:
                raise UserError(
                    f"Ray workers do not start ({reason}): the project and its environment must be at the "
                    "same path on every node."
                )
        else:
            say(f"a worker was lost with shard {number} ({reason}); another takes it.")
            self.strikes[self.places.pop(actor)] += 1
            self.tries[number] += 1
            if self.tries[number] < TRIES:
                # To the end: a broken machine shall not spend the tries of one shard.
                self.queue.append(number)
            else:
                self.given_up[number] = reason
        self.start_worker()

    def _lost(self) -> str:
        number, reason = min(self.given_up.items())
        others = f" and {len(self.given_up) - 1} more" if len(self.given_up) > 1 else ""
        return (
            f"Shard {self.store.files(number)[0]}{others} took {TRIES} workers with it (last {reason}); "
            "all other shards are there; remove the cause, then give the same command again."
        )


def _ray() -> Any:
    # Ray sends usage reports to its makers otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UserError(
            "The engine 'ray' needs Ray, which is not installed: run 'pip install .[cluster]'."
        ) from error


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """Connected to a cluster while the block runs; a connection that is there is used and left."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"No Ray cluster at '{address or os.environ.get('RAY_ADDRESS', 'this machine')}' "
            f"({str(error).splitlines()[0]}): start one with 'ray start', see docs/cluster.md."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()

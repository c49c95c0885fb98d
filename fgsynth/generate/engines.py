"""Engines: fill a store of synthetic images in this process or on a Ray cluster, the same bytes by both."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from fgsynth.config.checked import Checked, checked
from fgsynth.config.schema import Count, NotNegative
from fgsynth.generate import pieces, ray
from fgsynth.generate.pieces import Maker, missing, steps
from fgsynth.generate.store import Store
from fgsynth.generate.throughput import Speed
from fgsynth.utils.errors import UserError
from fgsynth.utils.interrupts import Stopped, listening, patient
from fgsynth.utils.progress import progress

PIECE = 256
"""Images that are made and kept at a time; a stop or a lost machine costs no more of them per worker."""


@dataclass(frozen=True)
class Engine(Checked):
    """Where images are made; UserError for a setting out of its range or without effect.

    "local": in this process, which makes every `workers`-th shard (a job array on a shared folder). "ray": by
    one actor per GPU of a Ray cluster, or per core where it has none; actors: their number, None for as many
    as fit; address: None for the cluster of RAY_ADDRESS or of this machine, or one started for the run.
    price: of a worker for an hour, for the cost left in the progress.
    """

    name: Literal["local", "ray"] = "local"
    worker: int = 0
    workers: Count = 1
    actors: Count | None = None
    address: str | None = None
    price: NotNegative | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.worker < self.workers:
            raise UserError(f"Worker {self.worker} of {self.workers}: workers count from 0.")
        if self.name == "ray" and self.workers > 1:
            raise UserError("The engine 'ray' shares the work out itself: set workers to 1.")
        if self.name == "local" and (self.actors or self.address):
            raise UserError("actors and address have no effect on the engine 'local': leave them out.")


LOCAL = Engine()


@checked
def fill(
    store: Store, maker: Maker, bar: str = "images", engine: Engine = LOCAL, *, piece: Count = PIECE
) -> int:
    """Make the images that a store lacks; return how many were made.

    Called again after any interruption, it goes on with the first piece that was not finished. Only the
    workers of `engine` may fill the store at the same time.

    maker: called where and when images are made; loads a generator and returns `make(rows) -> images and
    notes`; for "ray" it must survive pickling. engine: where images are made; it does not change them. piece:
    images made and kept at a time; it decides the batches, hence the last bit of an image.

    Raises Stopped after SIGTERM or SIGINT, with finished pieces kept; UserError where `make` returns other
    than one image per row, for a disk that is full or away, and for a shard that no worker survives.
    """
    patient(partial(store.tidy, engine.worker, engine.workers), store.folder)
    if engine.name == "local":
        return _local(store, maker, bar, engine, piece)
    with Speed(len(store.plan), bar, engine.price) as speed:
        ray.fill(store, maker, speed, piece, engine.actors, engine.address)
    # What lost workers left half-written goes.
    store.tidy()
    pieces.tidy(store, set())
    return speed.made


def _local(store: Store, maker: Maker, bar: str, engine: Engine, piece: int) -> int:
    every = range(len(store.parts()))
    mine = every[engine.worker :: engine.workers]
    todo = [number for number in progress(mine, f"{bar}, checking") if missing(store, number)]
    others = set(every) - set(mine)
    pieces.tidy(store, others | set(todo))
    if not todo:
        return 0
    make = maker()
    total = sum(len(store.parts()[number]) for number in todo)
    with listening() as stop_requested, Speed(total, bar, engine.price) as speed:
        for number in todo:
            for step in steps(store, number, make, piece):
                speed.update(number, step)
                if stop_requested():
                    raise Stopped(speed.stopped(store.folder))
    pieces.tidy(store, others)
    return speed.made

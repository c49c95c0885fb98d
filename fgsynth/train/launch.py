"""Processes started from a notebook or a script: to train together, or to share out independent jobs."""

import multiprocessing
import os
import pickle
import signal
import socket
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import cloudpickle
import torch
from torch.multiprocessing.spawn import (
    ProcessContext,
    ProcessException,
    ProcessRaisedException,
    start_processes,
)

from fgsynth.train.ranks import started
from fgsynth.utils.errors import UserError
from fgsynth.utils.interrupts import AGAIN, Stopped, listening
from fgsynth.utils.paths import write_text
from fgsynth.utils.progress import QUIET, progress

T = TypeVar("T")
POLL = 0.2
"""Seconds after which a request to stop is passed on."""
WORK, MISTAKE, STOPPED = "work.pickle", "mistake.txt", "stopped.txt"
"""In the folder that the processes of a launch share."""


def together(work: Callable[[], object], processes: int) -> None:
    """`work()` in several processes that can talk, each with a GPU of its own where there are GPUs.

    work: what cloudpickle can send, also of a notebook's own cells; what it makes is in files. The processes
    are new ones, not forks, which could not use a GPU that the notebook has used, with the environment that
    torchrun gives. SIGTERM and SIGINT are passed on to them.
    Raises the UserError or Stopped of any of them, UserError for one that dies, and ProcessRaisedException
    with the traceback of any other error.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / WORK).write_bytes(cloudpickle.dumps(work))
        _watched(_member, (processes, _free_port(), folder), processes, folder)


def apart(function: Callable[[T], object], items: Sequence[T], processes: int, bar: str) -> None:
    """`function` of every item by independent processes, each on a GPU of its own.

    Each takes the next item when it is done with one. Sent and raised as by `together`.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    taken = multiprocessing.get_context("spawn").Value("i", 0)
    bars, shown = iter(progress(range(len(items)), bar)), 0

    def look() -> None:
        """Show how many are taken."""
        nonlocal shown
        while shown < min(taken.value, len(items)):
            shown = next(bars) + 1

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / WORK).write_bytes(cloudpickle.dumps((function, list(items))))
        _watched(_taker, (processes, gpus, taken, folder), processes, folder, look)


def each(function: Callable[[T], object], items: Iterable[T], bar: str) -> None:
    """`function` of every item: one job per GPU at a time, or one after another, each on all GPUs.

    With as many jobs as GPUs or more, each GPU takes the next job when it is done with one, as independent
    jobs need not wait for each other; with fewer jobs, or a single GPU, they are done here one after another,
    and a job that trains with `processes=None` uses all GPUs. function: leaves what it makes in files.
    Raises as `apart` or as `function`.
    """
    todo, count = list(items), torch.cuda.device_count()
    if count < 2 or len(todo) < count or started():
        for item in progress(todo, bar):
            function(item)
    else:
        apart(function, todo, count, bar)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _member(rank: int, size: int, port: int, folder: Path) -> None:
    """One of those that train together."""
    who = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    _settle(size, who | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}, quiet=rank > 0)
    _report_mistakes(pickle.loads((folder / WORK).read_bytes()), folder)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _taker(rank: int, size: int, gpus: list[str], taken: Any, folder: Path) -> None:
    """One of those that take item after item."""
    # Before anything touches a GPU: to this process there is one.
    _settle(size, {"CUDA_VISIBLE_DEVICES": gpus[rank % len(gpus)]} if gpus else {}, quiet=True)
    function, items = pickle.loads((folder / WORK).read_bytes())

    def take() -> None:
        """Take item after item until there is none."""
        with listening() as stopping:
            while not stopping():
                with taken.get_lock():
                    number, taken.value = taken.value, taken.value + 1
                if number >= len(items):
                    return
                function(items[number])
        raise Stopped(f"stopped between two jobs, {AGAIN}")

    _report_mistakes(take, folder)


def _settle(size: int, environment: dict[str, Any], quiet: bool) -> None:
    """Environment and threads of a new process, which has its share of the cores."""
    os.environ.update({key: str(value) for key, value in environment.items()})
    if quiet:
        os.environ[QUIET] = "1"
    share = max(1, (os.cpu_count() or 1) // size)
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", str(share))))


def _report_mistakes(work: Callable[[], object], folder: Path) -> None:
    """Run; a sentence that is meant for the user is left in a file."""
    try:
        work()
    except UserError as error:
        write_text(folder / MISTAKE, str(error))
        raise SystemExit(1) from error
    except Stopped as stopped:
        write_text(folder / STOPPED, str(stopped))


def _watched(
    main: Callable[..., None],
    arguments: tuple[Any, ...],
    processes: int,
    folder: Path,
    look: Callable[[], object] = lambda: None,
) -> None:
    """Start processes and wait for them; when one fails the others are ended."""
    with listening() as stopping:
        context = start_processes(main, arguments, processes, join=False, start_method="spawn")
        sent = False
        try:
            while not context.join(POLL):
                look()
                if stopping() and not sent:
                    sent = True
                    for process in context.processes:
                        process.terminate()
            look()
        except ProcessException as error:
            _explain(error, context, folder, stopping())
        finally:
            # What is left would go on behind a second signal.
            for process in context.processes:
                process.kill()
                process.join()
    if (folder / STOPPED).exists():
        raise Stopped((folder / STOPPED).read_text(encoding="utf-8").rstrip())


def _explain(error: ProcessException, context: ProcessContext, folder: Path, stopping: bool) -> NoReturn:
    """The first cause: whoever loses a partner fails too, and may be noticed before it."""
    if (folder / MISTAKE).exists():
        raise UserError((folder / MISTAKE).read_text(encoding="utf-8").rstrip()) from error
    codes = [process.exitcode for process in context.processes]
    died = [i for i, code in enumerate(codes) if code is not None and code < 0 and code != -signal.SIGTERM]
    if died:
        how = signal.Signals(-codes[died[0]]).name
        raise UserError(
            f"Process {died[0]} of {len(codes)} died by {how} (SIGKILL: often too little memory): see to it, "
            f"{AGAIN}"
        ) from error
    if isinstance(error, ProcessRaisedException):
        raise error
    if stopping:
        raise Stopped(f"stopped, {AGAIN}") from error
    raise UserError(f"Of {len(codes)} processes one ended early ({error.msg}): see to it, {AGAIN}") from error

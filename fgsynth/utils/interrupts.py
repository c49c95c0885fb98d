"""What ends a long run from outside: a scheduler's signal, a full disk, a file system that is away."""

import contextlib
import errno
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

from fgsynth.utils.errors import UserError
from fgsynth.utils.progress import QUIET

T = TypeVar("T")
Handler = Callable[[int, FrameType | None], object]
SAME = 1.0
"""Seconds in which signals are one request: terminals and schedulers often send it to parent and child."""
AWAY = frozenset({errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN})
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
AGAIN = "then give the same command again: what is finished is kept."


class Stopped(Exception):
    """The run was asked to stop and did, with everything finished kept; exit with 0, run again to go on."""


class _Requests:
    """Whether the process was asked to stop, and whether it is waiting, which a request ends at once."""

    stop = False
    waiting = False


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """While the block runs, SIGINT and SIGTERM end it as KeyboardInterrupt, of which SIGTERM has its number.

    SIGINT too where it was ignored: a shell starts what a script puts into the background like that.
    """

    def terminate(number: int, _: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt(number)

    # Python's own handler, which asyncio knows how to take the place of.
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: terminate}
    with _handled(handlers):
        yield


@contextlib.contextmanager
def _handled(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """While the block runs, signals have these handlers; outside the main thread they cannot be set."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None is a handler that was not set from Python, and cannot be from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextlib.contextmanager
def listening(clock: Callable[[], float] = time.monotonic) -> Iterator[Callable[[], bool]]:
    """While the block runs, SIGTERM and SIGINT only ask: yields `asked()`, to be looked at between batches.

    Where `patient` waits for a file system they raise Stopped. A second signal, more than SAME seconds after
    the first, stops at once: SIGINT as KeyboardInterrupt, SIGTERM as SystemExit of 143. Outside the main
    thread, which alone receives signals, `asked()` is False.
    """
    first: list[float] = []

    def handle(number: int, _: FrameType | None) -> None:
        """Note the first request; a second, later one stops at once."""
        if not first:
            first.append(clock())
            _Requests.stop = True
            if _Requests.waiting:
                raise Stopped("Stopped while waiting for a file system.")
            say(f"{signal.Signals(number).name}: finishing what is begun; once more stops at once.")
        elif clock() - first[0] > SAME:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    outer = _Requests.stop
    with _handled(dict.fromkeys((signal.SIGTERM, signal.SIGINT), handle)):
        try:
            yield lambda: bool(first)
        finally:
            # Not in another thread, to which no signal comes.
            if first:
                _Requests.stop = outer


def patient(
    work: Callable[[], T],
    folder: Path,
    landmark: Path | None = None,
    *,
    wait: float = 600.0,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """The result of `work()`, which reads or writes in `folder`, repeated while its file system is away.

    work: something to be repeated without harm. landmark: a file that is there as long as its file system is;
    without it an empty mount point would be written to, or a store taken for empty. wait: seconds from the
    first failure on; pauses grow from 1 to 30 s. Raises UserError naming the folder when they are over, and
    where the disk or the quota is full; Stopped, without waiting, if `listening` is asked to stop; any other
    error as it is.
    """
    seen = landmark or folder
    failed, pause = None, 1.0
    while True:
        try:
            if landmark:
                landmark.stat()
            result = work()
            # Again, as what is missed may have gone in between.
            if landmark:
                landmark.stat()
            return result
        except (OSError, UserError) as error:
            reason = _cause(error)
            if reason is not None and reason.errno in FULL:
                raise UserError(_full(folder, reason)) from error
            if reason is None or not _away(reason, seen):
                raise
            failed = clock() if failed is None else failed
            if clock() - failed >= wait:
                raise UserError(_gone(folder, reason, f"for {wait / 60:g} minutes")) from error
            away = reason
        _pause(sleep, pause, _gone(folder, away, "when the run was to stop"))
        pause = min(2 * pause, 30.0)


def _pause(sleep: Callable[[float], object], seconds: float, sentence: str) -> None:
    """Sleep, unless the process was or is asked to stop: then raise Stopped with a sentence."""
    _Requests.waiting = True
    try:
        if not _Requests.stop:
            sleep(seconds)
    except Stopped:
        pass
    finally:
        _Requests.waiting = False
    if _Requests.stop:
        raise Stopped(sentence)


def _cause(error: OSError | UserError) -> OSError | None:
    """What the operating system said; `paths.atomic` makes a sentence of it."""
    if isinstance(error, OSError):
        return error
    return error.__cause__ if isinstance(error.__cause__, OSError) else None


def _away(reason: OSError, seen: Path) -> bool:
    if reason.errno in AWAY:
        return True
    if reason.errno != errno.ENOENT:
        return False
    try:
        seen.stat()
    except OSError:
        return True
    return False  # some other file is missing


def _full(folder: Path, reason: OSError) -> str:
    if reason.errno == errno.EDQUOT:
        return f"Your quota of disk space for {folder} is used up: make room, {AGAIN}"
    free = "none"
    with contextlib.suppress(OSError):
        free = f"{shutil.disk_usage(folder).free / 2**20:.1f} MiB"
    return f"The disk of {folder} is full ({free} free): make room, {AGAIN}"


def _gone(folder: Path, reason: OSError, when: str) -> str:
    what = os.strerror(reason.errno) if reason.errno else str(reason)
    away = f"{folder} could not be reached {when} ({what})"
    return f"{away}: bring its file system back, {AGAIN}"


def say(sentence: str) -> None:
    """Tell whoever watches, on stderr."""
    if QUIET not in os.environ:
        sys.stderr.write(f"fgsynth: {sentence}\n")

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from fgsynth.utils.errors import UserError
from fgsynth.utils.interrupts import SAME, Stopped, listening, patient
from fgsynth.utils.paths import write_text


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self):
        self.now, self.pauses = 0.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.pauses.append(seconds)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folder(tmp_path):
    """With a landmark."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "plan").touch()
    return tmp_path / "store"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_only_asks_and_the_old_handlers_come_back(number):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with listening() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.parametrize(
    ("number", "stops"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_second_signal_stops_at_once_unless_it_is_the_first_one_forwarded(number, stops, clock):
    with listening(clock) as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        clock.sleep(SAME)
        os.kill(os.getpid(), number)
        assert asked()
        clock.sleep(0.1)
        with pytest.raises(stops) as raised:
            os.kill(os.getpid(), number)
    if stops is SystemExit:
        assert raised.value.code == 143


def test_a_request_is_told_to_whoever_watches(capsys, monkeypatch):
    for quiet in (True, False):
        if not quiet:
            monkeypatch.delenv("FGSYNTH_QUIET")
        with listening():
            os.kill(os.getpid(), signal.SIGINT)
        assert ("SIGINT: finishing what is begun" in capsys.readouterr().err) is not quiet


def test_outside_the_main_thread_nobody_is_asked():
    seen = []

    def work():
        with listening() as asked:
            seen.append((asked(), signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def failing(*errors, then="done"):
    """Raises one error per call, then returns."""
    left = list(errors)

    def work():
        if left:
            raise left.pop(0)
        return then

    return work


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ENOTCONN])
def test_work_is_repeated_while_the_file_system_is_away(folder, clock, number):
    work = failing(OSError(number, "away"), OSError(number, "away"))
    assert patient(work, folder, folder / "plan", sleep=clock.sleep, clock=clock) == "done"
    assert clock.pauses == [1, 2]


def test_pauses_grow_to_half_a_minute_and_end_with_a_sentence(folder, clock):
    tried = []

    def work():
        tried.append(clock())
        raise OSError(errno.ESTALE, "away")

    with pytest.raises(UserError, match=r"store could not be reached for 2 minutes \(Stale file handle\): "):
        patient(work, folder, folder / "plan", wait=120, sleep=clock.sleep, clock=clock)
    assert clock.pauses[:7] == [1, 2, 4, 8, 16, 30, 30]
    assert 120 <= tried[-1] < 150


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("before", [True, False])
def test_a_stop_ends_the_wait_for_a_file_system_at_once(folder, number, before):
    """Asked before the wait or in the middle of it; a whole wait would be ten minutes."""
    shutil.rmtree(folder)
    begun = time.monotonic()
    with listening():
        if before:
            os.kill(os.getpid(), number)
        else:
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), number))
            signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Stopped, match=r"could not be reached when the run was to stop .*: bring"):
            patient(lambda: write_text(folder / "x", "text"), folder, folder / "plan")
    assert time.monotonic() - begun < 0.9
    # The request ends with the run that it was for.
    with listening(), pytest.raises(UserError, match="for 0 minutes"):
        patient(lambda: None, folder, folder / "plan", wait=0)


def test_a_run_within_a_run_leaves_its_request_alone(folder, clock):
    shutil.rmtree(folder)
    with listening():
        os.kill(os.getpid(), signal.SIGTERM)
        with listening():
            pass
        with pytest.raises(Stopped):
            patient(lambda: None, folder, folder / "plan", sleep=clock.sleep, clock=clock)
    assert not clock.pauses


DELETED = """
import shutil, sys, time
from pathlib import Path
sys.path[:0] = ["tests", "tests/generate"]
from test_store import make, plan
from fgsynth.generate.engines import fill
from fgsynth.generate.store import Store
from fgsynth.utils.interrupts import Stopped

store = Store(Path(sys.argv[1], "store"), plan(200), 40)

def slow(rows):
    if store.folder.exists():
        shutil.rmtree(store.folder)
        print("gone", flush=True)
    return make(rows)

try:
    fill(store, lambda: slow, piece=20)
except Stopped as stopped:
    print(stopped)
"""


def test_a_process_whose_folder_was_deleted_stops_at_once(tmp_path, root):
    command = [sys.executable, "-c", DELETED, str(tmp_path)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "gone\n"
        time.sleep(0.5)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
        assert time.monotonic() - begun < 10
    assert "store could not be reached when the run was to stop (No such file or directory)" in said
    assert process.returncode == 0


def test_a_folder_that_is_gone_for_a_minute_is_waited_for(folder, clock):
    """With its landmark; else the file would be written to where the file system is not mounted."""
    away = folder.rename(folder.with_name("away"))
    folder.mkdir()

    def sleep(seconds):
        clock.sleep(seconds)
        if clock.now > 60:
            assert not list(folder.iterdir())
            folder.rmdir()
            away.rename(folder)

    patient(lambda: write_text(folder / "x", "text"), folder, folder / "plan", sleep=sleep, clock=clock)
    assert (folder / "x").read_text() == "text\n"
    assert 60 < clock.now < 120


def test_what_was_done_while_the_landmark_went_is_done_again(folder, clock):
    calls = []

    def work():
        calls.append(clock())
        if len(calls) == 1:
            (folder / "plan").unlink()
        return len(calls)

    def sleep(seconds):
        clock.sleep(seconds)
        (folder / "plan").touch()

    assert patient(work, folder, folder / "plan", sleep=sleep, clock=clock) == 2


def test_an_error_behind_a_sentence_counts(folder, clock):
    """As `paths.atomic` makes one of it."""
    sentence = UserError("Cannot write")
    sentence.__cause__ = OSError(errno.ESTALE, "away")
    assert patient(failing(sentence), folder, sleep=clock.sleep, clock=clock) == "done"


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(errno.ENOENT, "x"), PermissionError(errno.EACCES, "x"), UserError("x"), KeyError("x")],
)
def test_other_errors_are_passed_on_at_once(folder, clock, error):
    with pytest.raises(type(error)) as raised:
        patient(failing(error), folder, folder / "plan", sleep=clock.sleep, clock=clock)
    assert raised.value is error
    assert not clock.pauses


def test_a_full_disk_and_a_full_quota_are_sentences(folder, clock):
    for number, sentence in (
        (errno.ENOSPC, r"The disk of .*store is full \([\d.]+ MiB free\): make room, then give the same"),
        (errno.EDQUOT, "Your quota of disk space for .*store is used up: make room"),
    ):
        with pytest.raises(UserError, match=sentence):
            patient(failing(OSError(number, "full")), folder, sleep=clock.sleep, clock=clock)
    assert not clock.pauses


FULL = """
import sys
from pathlib import Path
sys.path[:0] = ["tests", "tests/generate"]
from test_store import make, plan
from fgsynth.generate.engines import fill
from fgsynth.utils.errors import UserError
from fgsynth.generate.store import Store

store, hog = Store(Path(sys.argv[1], "store"), plan(200), 40), Path(sys.argv[1], "hog")
hog.write_bytes(bytes(350_000))
try:
    fill(store, lambda: make, piece=20)
except UserError as error:
    print(error)
print(sorted(path.name for path in store.folder.rglob(".partial*")))
hog.unlink()
print(fill(store, lambda: make, piece=20), store.todo())
"""


def test_a_disk_that_is_really_full_leaves_nothing_half_written(tmp_path, root):
    mounted = 'mount -t tmpfs -o size=600k tmpfs "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-rm", "bash", "-c", mounted, "bash", str(tmp_path), sys.executable, FULL]
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no file systems of one's own here")
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    sentence, partials, again = done.stdout.splitlines()
    assert sentence.startswith(f"The disk of {tmp_path}/store is full (0.0 MiB free): make room, then give")
    assert partials == "[]"
    assert again.endswith(" []")
    assert 0 < int(again.split()[0]) < 200

"""Work folders: what takes long is kept under the fingerprint of everything that it depends on."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import home, place, write_text

PACKAGE = Path(__file__).parents[1]
THREADS = 16
"""For reading: a network file system answers many questions at a time."""
SETTLED = 2e9
"""Nanoseconds after which a file that is written to again has another time of change on any file system."""


def fingerprint(modules: Iterable[str], *parts: Any) -> str:
    """A short digest of settings and of the code that uses them: other code never finds an old result.

    modules: names below fgsynth/, "evaluate/metrics" or a folder of modules like "miniworld", at any depth.
    """
    digest = hashlib.blake2b(code_digest(tuple(modules), PACKAGE).encode(), digest_size=10)
    for part in parts:
        digest.update(json.dumps(part, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()


@cache
def code_digest(modules: tuple[str, ...], package: Path) -> str:
    """Digest of modules as they were at the first call: a process runs what it loaded, edited or not."""
    each = [sorted((package / name).rglob("*.py")) or [package / f"{name}.py"] for name in modules]
    return files_digest(chain.from_iterable(each))


def files_digest(files: Iterable[Path]) -> str:
    """SHA-256 of files by their names and bytes."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def content_digests(files: Sequence[Path]) -> list[str]:
    """SHA-256 of each file's bytes, which are read only where the file may have changed since the last time.

    It may have where size, inode, time of writing or of change differ, so that files exchanged under their
    names, or overwritten with their times kept, are read again. The digests are kept in the user's cache, a
    file per folder, below $FGSYNTH_CACHE or ~/.cache/fgsynth, and made anew if lost. 100,000 files of 5 kB on
    a local disk take 5 s the first time and 1.5 s later. Raises UserError naming a file that cannot be read.
    """
    folders: dict[Path, list[Path]] = {}
    for path in files:
        folders.setdefault(path.parent, []).append(path)
    with ThreadPoolExecutor(THREADS) as pool:
        found = dict(chain.from_iterable(pool.map(_folder_digests, folders, folders.values())))
    return [found[path] for path in files]


def _folder_digests(folder: Path, files: Sequence[Path]) -> list[tuple[Path, str]]:
    """Each file of a folder with its digest."""
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()
    kept = home(os.environ.get("FGSYNTH_CACHE") or "~/.cache/fgsynth") / "contents" / f"{name[:32]}.json"
    try:
        known = json.loads(kept.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    now, new, found = time.time_ns(), {}, []
    for path in files:
        try:
            stat = path.stat()
            state = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
            *before, digest = known.get(path.name, [""])
            if before != state:
                digest = _sha256(path)
                # One that was written just now may be written to again within the same tick of the clock.
                if now - max(state[2:]) > SETTLED:
                    new[path.name] = [*state, digest]
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): restore or remove it.") from error
        found.append((path, digest))
    if new:
        with contextlib.suppress(OSError, UserError):
            write_text(kept, json.dumps(known | new))
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_digest(model: str) -> str:
    """Digest of the names and contents of a local model folder's files; a hub id stands for itself.

    A file stands for its folder.
    """
    folder = place(model).parent if place(model).is_file() else place(model)
    if not model or not folder.is_dir():
        return model
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    named = zip((p.relative_to(folder).as_posix() for p in files), content_digests(files), strict=True)
    return hashlib.sha256(json.dumps(list(named)).encode()).hexdigest()


def weights_digest(network: torch.nn.Module) -> str:
    """SHA-256 of a network's parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

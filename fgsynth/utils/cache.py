"""Work folders: what takes long is kept under the fingerprint of everything that it depends on."""

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from fgsynth.utils.paths import place

PACKAGE = Path(__file__).parents[1]


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


def model_digest(model: str) -> str:
    """Digest of a local model folder's files; a hub id stands for itself."""
    folder = place(model)
    return files_digest(sorted(p for p in folder.rglob("*") if p.is_file())) if folder.is_dir() else model


def weights_digest(network: torch.nn.Module) -> str:
    """SHA-256 of a network's parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

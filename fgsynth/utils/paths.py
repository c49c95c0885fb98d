"""Where things are, and how they get there whole: the root, atomic writes."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fgsynth.utils.errors import UserError


def root(start: Path | None = None) -> Path:
    """The project's root: the nearest folder upward that holds dvc.yaml.

    A notebook may be run from the root (papermill) or from its own folder (JupyterLab, nbval).
    Raises UserError outside a checkout.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise UserError(f"No dvc.yaml in {here} or above: run this inside a checkout of the project.")


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved onto it when the block ends well, removed when it does not.

    Raises UserError when the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise UserError(
            f"Cannot write into {path.parent} ({error.strerror}): make the folder writable."
        ) from error
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8, newline at the end."""
    with atomic(path) as partial:
        partial.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def from_root(name: str) -> str:
    """A name that may be a folder below the root, as a full path; any other (a hub id) as it is."""
    folder = root() / name
    return str(folder) if folder.exists() else name

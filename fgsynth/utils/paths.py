"""Where things are, and how they get there whole: the root, names from data, reading, atomic writes."""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgsynth.utils.errors import UserError, missing

if TYPE_CHECKING:
    import pandas as pd

GIT = "restore it with git checkout"
_FORBIDDEN = re.compile(r'[\0-\x1f\x7f%/\\<>:"|?*\ud800-\udfff]|^[. ]|[. ]\Z')


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


def home(name: str | Path) -> Path:
    """A path as a user writes it, with `~` for their home folder."""
    return Path(os.path.expanduser(name))  # noqa: PTH111, as pathlib's raises for a user whom there is not


def place(name: str | Path) -> Path:
    """A path as a user writes it in settings: below the root unless it is absolute or starts with `~`."""
    return root() / home(name)


def from_root(name: str) -> str:
    """A name that may be a folder as `place` finds it, as a full path; any other (a hub id) as it is."""
    return str(place(name)) if place(name).exists() else name


def file_name(name: str) -> str:
    """A name from data as that of one file or folder; different names give different ones.

    What a file system forbids or reads in its own way is percent-encoded (RFC 3986), as are a dot or space
    at an end; `urllib.parse.unquote` gives the name back.
    """
    return (
        _FORBIDDEN.sub(
            lambda m: "".join(f"%{byte:02X}" for byte in m[0].encode("utf-8", "surrogatepass")), name
        )
        or "%"
    )


def read_text(path: Path) -> str:
    """The text of a file of the project. Raises UserError, with its path, where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise missing(path) from error
    except OSError as error:
        what = "is a folder, where a file" if path.is_dir() else f"cannot be read ({error.strerror}): it"
        raise UserError(f"{path} {what} is needed.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8: save the file in UTF-8.") from error


def read_json(path: Path, advice: str = GIT) -> dict[str, Any]:
    """A JSON object of the project. Raises UserError, with its path and the advice, for anything else."""
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is no JSON ({error}): {advice}.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no JSON object: {advice}.")
    return found


def read_csv(path: Path, advice: str = GIT, needs: Iterable[str] = (), **options: Any) -> "pd.DataFrame":
    """A CSV file by pandas.

    Raises UserError, with its path and the advice, where it cannot be read or lacks a column that it needs.
    """
    import pandas as pd

    if not path.exists():
        raise missing(path)
    try:
        table = pd.read_csv(path, **options)
    except (ValueError, OSError) as error:  # pandas' errors and those of decoding are ValueErrors
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is no readable CSV file ({reason}): {advice}.") from error
    for column in needs:
        if column not in table.columns:
            raise UserError(f"{path} has no column '{column}': {advice}.")
    return table


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

"""What arguments of the command line may be: numbers, folders and files, each error one sentence."""

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NoReturn

from fgsynth.utils.errors import one_line
from fgsynth.utils.paths import home, place


def _number(kind: Callable[[str], float], least: int, what: str) -> Callable[[str], float]:
    """A reader of numbers from `least` on, without infinity and NaN."""

    def read(text: str) -> float:
        """The number that a text states."""
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"'{text}' is no {what} of at least {least}")
        return value

    return read


COUNT, WHOLE = _number(int, 1, "whole number"), _number(int, 0, "whole number")
AMOUNT = _number(float, 0, "number")


def there(text: str, only: Literal["folder", "file"] | None = None) -> Path:
    """A folder or file that is there; one of them alone, if asked."""
    path = home(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"there is no {only or 'folder or file'} '{text}'")
    if only == "folder" and not path.is_dir():
        raise argparse.ArgumentTypeError(f"'{text}' is a file")
    if only == "file" and not path.is_file():
        raise argparse.ArgumentTypeError(f"'{text}' is a folder")
    return path


FOLDER, FILE = partial(there, only="folder"), partial(there, only="file")


def new(text: str, found: Callable[[str], Path] = place) -> Path:
    """A folder to write into, there or not; below the root, if relative."""
    path = found(text)
    nearest = next(each for each in (path, *path.parents) if each.exists())
    if not nearest.is_dir():
        raise argparse.ArgumentTypeError(f"'{nearest}' is a file: name a folder")
    return path


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2."""
        self.exit(2, one_line(f"fgsynth: {message}; see '{self.prog} --help'.") + "\n")

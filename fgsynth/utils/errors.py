"""The one exception a user is meant to read."""

from pathlib import Path

RENAMED = {
    "own_pictures": "own_images",
    "07_own_pictures": "07_own_images",
    "pictures": "images",
    "ways": "methods",
    "curve_ways": "curve_methods",
    "ideas": "methods",
}
"""Earlier names of stages, notebooks and parameters -> what they are now."""


class UserError(Exception):
    """A mistake in what was given to us: one sentence naming the file, key or class, and what to do.

    The command line prints the sentence without a traceback and exits with 1.
    """


class UserValueError(UserError, ValueError):
    """The same, where scikit-learn's conventions need a ValueError."""


def one_line(text: str) -> str:
    """A text without line breaks, and with escapes for what no terminal shows."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split("\n")))


def missing(path: Path) -> UserError:
    """The sentence for a file that belongs to the project and is not there."""
    advice = renamed(path.stem) or f"restore it with 'git checkout {path}'."
    return UserError(f"{path} is missing: {advice}")


def renamed(name: str) -> str:
    """The sentence for a name from before; empty for any other."""
    return f"`{name}` is `{RENAMED[name]}` now." if name in RENAMED else ""

"""The one exception a user is meant to read."""

from pathlib import Path


class UserError(Exception):
    """A mistake in what was given to us: one sentence naming the file, key or class, and what to do.

    The command line prints the sentence without a traceback and exits with 1.
    """


class UserValueError(UserError, ValueError):
    """The same where scikit-learn's conventions ask for a ValueError."""


def missing(path: Path) -> UserError:
    """The sentence for a file that belongs to the project and is not there."""
    return UserError(f"{path} is missing: restore it with 'git checkout {path}'.")

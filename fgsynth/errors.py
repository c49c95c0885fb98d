"""The one exception a user is meant to read."""


class UserError(Exception):
    """A mistake in what was given to us: one sentence naming the file, key or class, and what to do.

    The command line prints the sentence without a traceback and exits with 1.
    """

"""The first check of a set-up: do the large libraries import, and do they match."""

import importlib

from fgsynth.utils.errors import UserError

LIBRARIES = ("torch", "torchvision", "timm", "diffusers", "transformers")


def check(libraries: tuple[str, ...] = LIBRARIES) -> dict[str, str]:
    """Import each library; returns name -> version.

    Raises UserError with one sentence for the first that fails, whatever it raises (a torchvision
    of another build than torch fails with a RuntimeError about a missing operator).
    """
    versions = {}
    for name in libraries:
        try:
            versions[name] = str(importlib.import_module(name).__version__)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"'import {name}' fails ({type(error).__name__}: {reason}): torch and torchvision must be "
                "the pair in requirements.lock; remove .venv and run 'make env'."
            ) from error
    return versions

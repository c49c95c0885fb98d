"""The set-up: do the large libraries import and match, and on which instructions do they compute."""

import importlib
import os

from fgsynth.utils.errors import UserError

PORTABLE = "FGSYNTH_PORTABLE"
INSTRUCTIONS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
    "OMP_NUM_THREADS": "2",
}
"""By library (ATen, oneDNN, MKL) what it computes with, and on how many threads it adds up."""


def portable() -> None:
    """Pin the instructions of torch's libraries where FGSYNTH_PORTABLE=1, before torch is imported.

    Processors with AVX-512 round otherwise than those without, which makes every training another draw.
    Pinned, x86-64 processors of the last ten years compute alike as far as these libraries promise it: MKL
    promises it of Intel's. The denoiser of the mini unCLIP takes 1.4 times as long for it.
    """
    if os.environ.get(PORTABLE) == "1":
        os.environ.update(INSTRUCTIONS)


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

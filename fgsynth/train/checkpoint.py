"""Checkpoints of a training: one file of tensors and plain values, whole or not at all."""

import pickle
from pathlib import Path
from typing import Any

import torch

from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import atomic

NAME = "training.checkpoint"
"""The file in a run's folder. Its suffix is its own, so that what a killed writer left is told apart."""


def write(folder: Path, state: dict[str, Any]) -> None:
    """Write nested tensors, numbers and strings by name, in place of the checkpoint before."""
    with atomic(folder / NAME) as partial:
        torch.save(state, partial)


def read(folder: Path) -> dict[str, Any] | None:
    """Read it, tensors on the CPU; None without a checkpoint. Raises UserError for a damaged one."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        # With weights_only a file runs no code of its own.
        state: dict[str, Any] = torch.load(path, "cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is damaged: remove it, and the training starts anew.") from error
    return state


def remove(folder: Path) -> None:
    """The checkpoint of a finished training, and what killed writers left of others."""
    for path in (folder / NAME, *folder.glob(f".partial-*{Path(NAME).suffix}")):
        path.unlink(missing_ok=True)


def random_state(device: torch.device) -> list[torch.Tensor]:
    """Of torch's global generators: the CPU's and, of a GPU, its own."""
    gpu = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *gpu]


def restore_random(states: list[torch.Tensor], device: torch.device) -> None:
    """The opposite of `random_state`, on a device of the same kind."""
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)

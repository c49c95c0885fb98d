"""Checkpoints of a training: tensors and notes in one safetensors file, whole or not at all, no pickle."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import atomic

NAME = "training.checkpoint"
"""The file in a run's folder. Its suffix is its own, so that what a killed writer left is told apart."""


def write(folder: Path, tensors: dict[str, Tensor], notes: dict[str, Any]) -> None:
    """Write tensors of any device by name, and notes as JSON, in place of the checkpoint before."""
    on_cpu = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic(folder / NAME) as partial:
        save_file(on_cpu, partial, {"notes": json.dumps(notes)})


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read tensors on the CPU and notes; None without a checkpoint. Raises UserError for a damaged one."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, no dict
            return tensors, json.loads(opened.metadata()["notes"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: remove it, and the training starts anew.") from error


def remove(folder: Path) -> None:
    """The checkpoint of a finished training, and what killed writers left of others."""
    for path in (folder / NAME, *folder.glob(f".partial-*{Path(NAME).suffix}")):
        path.unlink(missing_ok=True)


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with a prefix before their names."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def of(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `under` put there, by their own names."""
    return {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}


def optimiser_state(optimiser: Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Its tensors by parameter's number and name, "3.exp_avg", and its groups as JSON holds them."""
    state = optimiser.state_dict()
    tensors = {
        f"{number}.{name}": value for number, each in state["state"].items() for name, value in each.items()
    }
    return tensors, state["param_groups"]


def restore_optimiser(optimiser: Optimizer, tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> None:
    """The opposite of `optimiser_state`, for an optimiser of the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    for parameter, each in optimiser.state.items():
        for name, value in each.items():
            if value.shape == parameter.shape:
                # In the parameter's order of memory (channels last), as an undisturbed run has them.
                each[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def random_state(device: torch.device) -> list[Tensor]:
    """Of torch's global generators: the CPU's and, of a GPU, its own."""
    gpu = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *gpu]


def restore_random(states: list[Tensor], device: torch.device) -> None:
    """The opposite of `random_state`, on a device of the same kind."""
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)

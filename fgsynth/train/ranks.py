"""The processes of one data-parallel training: which of them this is, and what all of them know."""

import os
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import torch
from pydantic import PlainValidator
from torch import Tensor

from fgsynth.utils.errors import UserError

T = TypeVar("T")


def _device(value: Any) -> Any:
    try:
        torch.device(value or "cpu")
    except (RuntimeError, TypeError) as error:
        raise ValueError("must be 'cpu', 'cuda' or one GPU, as 'cuda:1'") from error
    return value


Device = Annotated[str | torch.device | None, PlainValidator(_device)]
"""A device or its name; None is a GPU if there is one."""


@dataclass(frozen=True)
class Ranks:
    """The number of this process, how many train together, its device. Alone, every method costs nothing.

    Of accelerate only its process state and collectives are used: its `Accelerator` holds one precision per
    Python process, and a notebook may train two networks in two.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Sum over the processes, the same in all of them."""
        if self.size == 1:
            return values
        from accelerate.utils import reduce

        return reduce(values.to(self.device), "sum")

    def any(self, holds: bool) -> bool:
        """Reduce a condition over all processes: what all do must be decided by all."""
        return holds if self.size == 1 else bool(self.total(torch.tensor(float(holds))) > 0)

    def all(self, value: T) -> list[T]:
        """Gather a value of every process, by rank."""
        if self.size == 1:
            return [value]
        from accelerate.utils import gather_object

        return gather_object([value])

    def rows(self, n: int) -> Tensor | None:
        """Every size-th of n rows from this rank on; None alone, for all of them."""
        return None if self.size == 1 else torch.arange(self.rank, n, self.size)

    def joined(self, part: Tensor, n: int) -> Tensor:
        """Integers of all n rows, (n,), on the CPU, where each process has those of its `rows`."""
        if self.size == 1:
            return part
        whole = torch.zeros(n, dtype=part.dtype)
        whole[self.rank :: self.size] = part
        return self.total(whole).cpu()

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()


def started() -> bool:
    """Whether this process is one of several that were started to train together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def ranks(device: str | torch.device | None = None) -> Ranks:
    """Who this process is among those started by torchrun, `accelerate launch` or `train.launch`, or alone.

    device: None is a GPU if there is one, each process its own. They talk by NCCL on GPUs, by gloo on CPUs.
    Raises UserError for a GPU where there is none.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if where.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"There is no GPU for device '{where}' here: choose 'cpu', or leave it out.")
    if not started():
        return Ranks(0, 1, where)
    # Imported only here: it takes a second, and a process alone has no use for it.
    from accelerate import PartialState

    state = PartialState(cpu=where.type == "cpu")
    return Ranks(state.process_index, state.num_processes, state.device)

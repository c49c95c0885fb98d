"""What costs are measured with: the device's name, seconds by network, peak memory."""

import ctypes
import gc
import platform
import resource
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fgsynth.generate.generator import Generator
from fgsynth.models.networks import Classifier

STATUS = Path("/proc/self/status")
"""Linux only."""
PARTS = ("text", "image", "denoiser", "decoder", "guide", "backward", "rest")


def hardware(device: torch.device) -> str:
    """Name of the device, and PyTorch's version."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def start_peak(device: torch.device) -> None:
    """Forget the peak so far: of the allocator on a GPU, of the process on a CPU under Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif STATUS.exists():
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: torch.device) -> float:
    """Most memory in use since `start_peak`, in MiB; without Linux, since the process began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if STATUS.exists():
        return int(STATUS.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class Stopwatch:
    """Seconds and passes by the network at work, by hooks; what follows a guide under gradient is backward.

    Checkpoints compute blocks again, never a whole network: its hooks do not fire on the way back.
    """

    def __init__(self, generator: Generator, classifier: Classifier) -> None:
        self.device = generator.device
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.passes = dict.fromkeys(PARTS, 0)
        self._part = "rest"
        networks = {**generator.networks, "decoder": generator.pipe.vae.decoder, "guide": classifier}
        # The second text encoder is "text 2".
        timed = [(name.split()[0], part) for name, part in networks.items() if name.split()[0] in PARTS]
        self._hooks = [hook for name, part in timed for hook in self._watch(name, part)]
        self._since = self._now()

    def __enter__(self) -> "Stopwatch":
        return self

    def __exit__(self, *_: object) -> None:
        self._book("rest")
        for hook in self._hooks:
            hook.remove()

    @property
    def total(self) -> float:
        """Seconds in all."""
        return sum(self.seconds.values())

    def _watch(self, part: str, network: nn.Module) -> tuple[Any, Any]:
        def starts(*_: object) -> None:
            self._book(part)
            self.passes[part] += 1

        def ends(*_: object) -> None:
            self._book("backward" if part == "guide" and torch.is_grad_enabled() else "rest")

        return network.register_forward_pre_hook(starts), network.register_forward_hook(ends)

    def _book(self, part: str) -> None:
        now = self._now()
        self.seconds[self._part] += now - self._since
        self._part, self._since = part, now

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

"""Cost of feedback guidance (FG table 5): seconds, memory and network evaluations per picture."""

import platform
import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch

from fgsynth.criteria import CRITERIA, Criterion, Hardness
from fgsynth.generator import Generator
from fgsynth.guidance import Guidance
from fgsynth.networks import Classifier, small
from fgsynth.paths import write_text
from fgsynth.synthesis import Feedback, Plan, synthesise

N_CLASSES = 24
ROWS: dict[str, tuple[str | None, Guidance]] = {
    "LDM": (None, Guidance()),
    "FG loss, exact": ("loss", Guidance()),
    "FG hardness, exact": ("hardness", Guidance()),
    "FG entropy, exact": ("entropy", Guidance()),
    "FG entropy, cheap": ("entropy", Guidance(through_network=False)),
    "FG entropy, cheap, reused": ("entropy", Guidance(through_network=False, reuse=True)),
    "FG entropy, cheap, every step": ("entropy", Guidance(through_network=False, every=1)),
    "FG entropy, exact, every step": ("entropy", Guidance(every=1)),
}
"""Table 5's rows (its printed seconds are lost to us) and the variants of ours."""


@contextmanager
def _counted(generator: Generator) -> Iterator[dict[str, int]]:
    """Passes of the denoiser and the decoder while the block runs."""
    seen = {"denoiser": 0, "decoder": 0}

    def count(name: str) -> object:
        def hook(*_: object) -> None:
            seen[name] += 1

        return hook

    handles = [
        generator.pipe.unet.register_forward_hook(count("denoiser")),
        generator.pipe.vae.decoder.register_forward_hook(count("decoder")),
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _criteria(classifier: Classifier) -> dict[str, Criterion]:
    k = int(classifier(torch.zeros(1, 3, 32, 32))[1].shape[1])
    hardness = Hardness(
        torch.zeros(N_CLASSES, k), torch.eye(k).expand(N_CLASSES, k, k), torch.zeros(N_CLASSES)
    )
    return {**CRITERIA, "hardness": hardness}


def _peak(device: torch.device) -> float:
    """Most memory in use so far, in MiB: of the process on a CPU, of the allocator on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cost(
    generator: Generator, batches: tuple[int, ...] = (1, 64), repeats: int = 3, cfg: float = 3.0
) -> pd.DataFrame:
    """Every row at every batch size, rows in turn so that a busy machine slows all alike.

    Columns: batch, method, seconds (per picture, median of the repeats), relative (to LDM; median of the
    ratios within a repeat), denoiser, decoder (passes per batch), peak_mib (so far in this run).
    """
    classifier = small(N_CLASSES).eval().requires_grad_(False).to(generator.device)
    criteria, rows = _criteria(classifier), []
    for batch in batches:
        plan = Plan(
            ["apple in water"] * batch,
            generator.no_image(batch) + 0.1,
            torch.zeros(batch, dtype=torch.long),
            range(batch),
        )
        seconds: dict[str, list[float]] = {name: [] for name in ROWS}
        passes = {}
        for repeat in range(repeats + 1):
            for name, (criterion, guidance) in ROWS.items():
                feedback = None
                if criterion is not None:
                    feedback = Feedback(classifier, {criterion: criteria[criterion]}, N_CLASSES, guidance)
                with _counted(generator) as seen:
                    start = time.perf_counter()
                    synthesise(generator, plan, cfg, feedback, batch=batch)
                    elapsed = time.perf_counter() - start
                passes[name] = (seen["denoiser"], seen["decoder"])
                if repeat:  # the first round warms up
                    seconds[name].append(elapsed / batch)
        for name in ROWS:
            ratios = [a / b for a, b in zip(seconds[name], seconds["LDM"], strict=True)]
            rows.append(
                (
                    batch,
                    name,
                    statistics.median(seconds[name]),
                    statistics.median(ratios),
                    *passes[name],
                    _peak(generator.device),
                )
            )
    return pd.DataFrame(
        rows, columns=["batch", "method", "seconds", "relative", "denoiser", "decoder", "peak_mib"]
    )


def hardware(device: torch.device) -> str:
    """What the numbers were measured on."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def write(table: pd.DataFrame, device: torch.device, folder: Path) -> str:
    """Writes cost.csv and cost.md into the folder; returns the printed table."""
    shown = table.assign(
        seconds=table["seconds"].map("{:.4f}".format), relative=table["relative"].map("{:.2f}x".format),
        peak_mib=table["peak_mib"].map("{:.0f}".format),
    )  # fmt: skip
    write_text(
        folder / "cost.csv", table.assign(hardware=hardware(device)).to_csv(index=False, float_format="%.5g")
    )
    note = "30 DDIM steps, guided at every 5th unless said otherwise"
    text = f"{shown.to_string(index=False)}\n\n{hardware(device)}; {note}\n"
    write_text(folder / "cost.txt", text)
    return text

"""Cost of feedback guidance (FG table 5): seconds, memory and network evaluations per image."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from fgsynth.config import names
from fgsynth.config.names import UNGUIDED
from fgsynth.cost.meter import Stopwatch, hardware, peak, start_peak
from fgsynth.generate.generator import Generator
from fgsynth.generate.synthesise import Feedback, Plan, synthesise
from fgsynth.guidance.criteria import CRITERIA, Criterion, Hardness
from fgsynth.guidance.feedback import Guidance
from fgsynth.models.networks import Classifier, small
from fgsynth.utils.paths import from_root, write_text
from fgsynth.utils.progress import progress

N_CLASSES = 24
ROWS: dict[str, tuple[str | None, Guidance]] = {
    UNGUIDED: (None, Guidance()),
    names.LOSS_FIFTH: ("loss", Guidance()),
    names.HARDNESS_FIFTH: ("hardness", Guidance()),
    names.EXACT_FIFTH: ("entropy", Guidance()),
    names.CHEAP_FIFTH: ("entropy", Guidance(through_network=False)),
    names.EXACT_REUSED: ("entropy", Guidance(reuse=True)),
    names.CHEAP_REUSED: ("entropy", Guidance(through_network=False, reuse=True)),
    names.CHEAP_EVERY: ("entropy", Guidance(through_network=False, every=1)),
    names.EXACT_EVERY: ("entropy", Guidance(every=1)),
}
"""Table 5's rows (its printed seconds are lost to us) and the variants of ours."""


def _criteria(classifier: Classifier, side: int) -> dict[str, Criterion]:
    device = next(classifier.parameters()).device
    k = int(classifier(torch.zeros(1, 3, side, side, device=device))[1].shape[1])
    zeros, identity = torch.zeros(N_CLASSES, k, device=device), torch.eye(k, device=device)
    hardness = Hardness(zeros, identity.expand(N_CLASSES, k, k), zeros[:, 0])
    return {**CRITERIA, "hardness": hardness}


@dataclass(frozen=True)
class _Case:
    """A generator, guide and plan, to be timed under every row's guidance."""

    generator: Generator
    classifier: Classifier
    criteria: dict[str, Criterion]
    plan: Plan
    cfg: float

    def time(self, name: str) -> dict[str, float]:
        """One run of a row: seconds per image, passes of denoiser and decoder, peak memory."""
        criterion, guidance = ROWS[name]
        feedback, n = None, len(self.plan.seeds)
        if criterion is not None:
            feedback = Feedback(self.classifier, {criterion: self.criteria[criterion]}, N_CLASSES, guidance)
        start_peak(self.generator.device)
        with Stopwatch(self.generator, self.classifier) as watch:
            synthesise(self.generator, self.plan, self.cfg, feedback, batch=n)
        passes = {name: watch.passes[name] for name in ("denoiser", "decoder")}
        return {"seconds": watch.total / n, **passes, "peak_mib": peak(self.generator.device)}


def cost(
    generator: Generator, batches: tuple[int, ...] = (1, 64), repeats: int = 3, cfg: float = 3.0
) -> pd.DataFrame:
    """Every row at every batch size, rows in turn so that a busy machine slows all alike.

    Columns: batch, method, seconds (per image, median of the repeats), relative (to no feedback; median of
    the ratios within a repeat), denoiser, decoder (passes per batch), peak_mib (of process or allocator).
    """
    classifier = small(N_CLASSES).eval().requires_grad_(False).to(generator.device)
    criteria, tables = _criteria(classifier, generator.side), []
    for batch in batches:
        image = generator.no_image(batch) + 0.1
        plan = Plan(["apple in water"] * batch, image, torch.zeros(batch, dtype=torch.long), range(batch))
        case, runs = _Case(generator, classifier, criteria, plan, cfg), []
        for repeat in progress(range(repeats + 1), f"batch {batch}"):
            for name in ROWS:
                measured = case.time(name)
                if repeat:  # the first round warms up
                    runs.append({"repeat": repeat, "method": name, **measured})
        tables.append(_medians(pd.DataFrame(runs)).assign(batch=batch))
    return pd.concat(tables, ignore_index=True)[
        ["batch", "method", "seconds", "relative", "denoiser", "decoder", "peak_mib"]
    ]


def _medians(runs: pd.DataFrame) -> pd.DataFrame:
    unguided = runs[runs["method"] == UNGUIDED].set_index("repeat")["seconds"]
    runs = runs.assign(relative=runs["seconds"] / runs["repeat"].map(unguided))
    return runs.drop(columns="repeat").groupby("method", sort=False).median().reset_index()


def run(folder: Path, model: str, batches: tuple[int, ...], half: bool) -> str:
    """Measure a generator (a folder, or a hub id); write its table into the folder and return it."""
    device, dtype = "cuda" if torch.cuda.is_available() else "cpu", torch.float16 if half else torch.float32
    generator = Generator.load(from_root(model), device=device, dtype=dtype)
    return write(cost(generator, batches), generator, folder)


def write(table: pd.DataFrame, generator: Generator, folder: Path) -> str:
    """Write cost.csv and cost.txt into the folder; return the printed table."""
    text = table.to_csv(index=False, float_format="%.5g")
    write_text(folder / "cost.csv", text)
    shown = table.assign(
        seconds=table["seconds"].map("{:.4f}".format), relative=table["relative"].map("{:.2f}x".format),
        **{c: table[c].map("{:.0f}".format) for c in ("denoiser", "decoder", "peak_mib")},
    )  # fmt: skip
    note = f"{len(generator.schedule.steps)} DDIM steps; seconds per image; passes per batch"
    printed = f"{shown.to_string(index=False)}\n\n{hardware(generator.device)}; {note}\n"
    write_text(folder / "cost.txt", printed)
    return printed

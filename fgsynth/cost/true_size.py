"""Cost of feedback guidance at true size (FG table 5): where an image's time goes, and how much memory."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fgsynth.cost.meter import PARTS, Stopwatch, hardware, peak, start_peak
from fgsynth.cost.true_shapes import parameter_counts, true_size
from fgsynth.generate.generator import Generator
from fgsynth.generate.resize import at_resolution
from fgsynth.generate.synthesise import Feedback, Plan, synthesise
from fgsynth.guidance.criteria import entropy
from fgsynth.guidance.feedback import Guidance
from fgsynth.models.networks import Classifier, create
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import write_text

SIDE = 224
CFG = 5.0
CLASSIFIERS = {"resnext50_32x4d": 1000, "resnet50": 60}
"""The guides of ImageNet-LT and NICO++, and their classes."""
GRADIENTS: dict[str, Guidance | None] = {
    "none": None,
    "exact": Guidance(),
    "cheap": Guidance(through_network=False),
    "exact, reused": Guidance(reuse=True),
}
"""Every 5th step, through the whole network, only through the decoder, or pushing in between as well."""
PEAKS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "V100": 125.0,
    "T4": 65.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}
"""Dense half-precision TFLOP/s by a part of the name, from the makers' data sheets; longer names first."""
KEY = ["hardware", "precision", "classifier", "gradient", "batch", "steps"]
MEASURED = ["seconds", *PARTS, "peak_gib", "tflop", "share_of_peak"]
COLUMNS = [*KEY, "date", "guided", *MEASURED]
"""seconds, each part's seconds and tflop: per image. peak_gib: of the process, or the GPU's allocator."""


@dataclass(frozen=True)
class Case:
    """A generator and a guide, to be measured under every kind of guidance."""

    generator: Generator
    classifier: Classifier
    n_classes: int
    side: int

    def sample(self, guidance: Guidance | None, batch: int) -> dict[str, float]:
        """One batch end to end, text and image to images: seconds in all and of each part."""
        # A fresh one, as text embeddings are kept.
        generator = Generator(self.generator.pipe, self.generator.schedule, self.generator.tiny)
        seeds, feedback = range(batch), None
        if guidance is not None:
            guide = at_resolution(self.classifier, self.side)
            feedback = Feedback(guide, {"entropy": entropy}, self.n_classes, guidance)
        with Stopwatch(generator, self.classifier) as watch:
            image = generator.embed_image([_image()] * batch, seeds)
            label = torch.zeros(batch, dtype=torch.long)
            synthesise(generator, Plan(["a"] * batch, image, label, seeds), CFG, feedback, batch=batch)
        return {"seconds": watch.total, **watch.seconds}

    def measure(self, gradient: str, batch: int) -> dict[str, Any]:
        """A row of the table but for what names its run. What does not fit into memory is NaN.

        A GPU warms up first, which is when its floating-point operations are counted, recomputation included.
        """
        device, guidance = self.generator.device, GRADIENTS[gradient]
        steps = self.generator.schedule.steps
        row = {"gradient": gradient, "batch": batch, "steps": len(steps)}
        row["guided"] = len(guidance.guided_steps(len(steps))) if guidance else 0
        try:
            start_peak(device)
            with FlopCounterMode(display=False) as counter:
                seconds = self.sample(guidance, batch)
            if device.type == "cuda":
                start_peak(device)
                seconds = self.sample(guidance, batch)
        except UserError as error:
            if not isinstance(error.__cause__, RuntimeError):
                raise
            return row | dict.fromkeys(MEASURED, torch.nan)
        tflop = counter.get_total_flops() / 1e12
        share = tflop / seconds["seconds"] / peak_of(device)
        per_image = {name: value / batch for name, value in {**seconds, "tflop": tflop}.items()}
        return {**row, **per_image, "peak_gib": peak(device) / 1024, "share_of_peak": share}


def _image() -> Tensor:
    return torch.arange(256 * 256 * 3).reshape(256, 256, 3).to(torch.uint8)


def peak_of(device: torch.device) -> float:
    """Dense half-precision TFLOP/s of a card by its name, else NaN."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((value for part, value in PEAKS.items() if part in name), torch.nan)


def run(
    folder: Path,
    classifiers: Sequence[str] = tuple(CLASSIFIERS),
    gradients: Sequence[str] = tuple(GRADIENTS),
    batches: Sequence[int] = (),
    n_steps: int = 0,
    precision: str = "bfloat16",
) -> str:
    """Measure with random weights of the published shapes; write true_size.csv and true_size.md.

    Without batches and steps: 1 to 32 and 30 on a GPU, 1 and 2 on a CPU. Every row is written when it is
    there, in place of an earlier one of the same case. Raises UserError for an unknown name.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    _check("classifier", classifiers, CLASSIFIERS)
    _check("gradient", gradients, GRADIENTS)
    _check("precision", [precision], ("float16", "bfloat16", "float32"))
    sizes = batches or ((1, 2, 4, 8, 16, 32) if device == "cuda" else (1,))
    generator = true_size(n_steps or (30 if device == "cuda" else 2), getattr(torch, precision), device)
    text = ""
    for name in classifiers:
        guide = create(name, CLASSIFIERS[name]).eval().requires_grad_(False).to(device)
        case = Case(generator, guide, CLASSIFIERS[name], SIDE)
        for gradient in gradients:
            for batch in sizes:
                row = {"precision": precision, "classifier": name, **case.measure(gradient, batch)}
                row |= {"hardware": hardware(generator.device), "date": date.today().isoformat()}
                text = write(folder, row)
    return text


def _check(what: str, asked: Iterable[str], known: Iterable[str]) -> None:
    for name in asked:
        if name not in known:
            raise UserError(f"Unknown {what} '{name}': choose from {', '.join(map(repr, known))}.")


def write(folder: Path, row: dict[str, Any]) -> str:
    """Put a row into true_size.csv and write true_size.md anew; return its text.

    Raises UserError for a table with other columns.
    """
    path = folder / "true_size.csv"
    table = pd.DataFrame([row])[COLUMNS]
    if path.is_file():
        earlier = pd.read_csv(path)
        if list(earlier.columns) != COLUMNS:
            raise UserError(f"{path} has other columns than true-size writes: move it away.")
        table = pd.concat([earlier, table]).drop_duplicates(KEY, keep="last")
    write_text(path, table.to_csv(index=False, float_format="%.5g"))
    text = _markdown(pd.read_csv(path))
    write_text(folder / "true_size.md", text)
    return text


def _markdown(table: pd.DataFrame) -> str:
    named = ", ".join(f"{name} {count / 1e6:.0f} M" for name, count in parameter_counts().items())
    lines = [
        "# Feedback guidance at true size",
        "",
        "Stable unCLIP 2-1 in its published shapes with random weights, 768 x 768 pixels, classifier-free",
        "guidance, end to end from prompt and image to images. What it costs is measured here; what it",
        f"draws is noise. Parameters: {named}.",
        "",
        "Seconds are per image; each part's are those of its forward passes, `backward` holds the gradient",
        "with what checkpoints compute again, `rest` everything between the networks. Decoder and guide are",
        "in float32. TFLOP are per image, repeated work included; the share is of the card's dense",
        "half-precision peak. Memory is the peak of the process or of the GPU's allocator, in GiB. A row",
        "without numbers did not fit into memory.",
    ]
    for (device, day), rows in table.groupby(["hardware", "date"], sort=False):
        lines += ["", f"## {device}, {day}", "", *_rows(rows.drop(columns=["hardware", "date"]))]
    return "\n".join(lines)


def _rows(table: pd.DataFrame) -> list[str]:
    def shown(x: Any) -> str:
        return x if isinstance(x, str) else "" if pd.isna(x) else f"{x:.3g}"

    head = ["| " + " | ".join(table.columns) + " |", "|" + " --- |" * len(table.columns)]
    return head + ["| " + " | ".join(map(shown, row)) + " |" for row in table.itertuples(index=False)]

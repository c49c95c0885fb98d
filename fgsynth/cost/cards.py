"""What the paper's tables take on known cards: batches that fit, seconds per image, hours (estimates).

Operations and memory are counted at the published shapes (`true_counts`); seconds follow from a card's
data sheet and an assumed share of it, unless the card itself was measured (`true_size`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from fgsynth.config import params
from fgsynth.config.names import FG_ENTROPY, TEXT_IMAGE
from fgsynth.config.schema import Sampling, validated
from fgsynth.cost.calibrate import Calibration
from fgsynth.cost.estimate import Evaluations, estimate, evaluations
from fgsynth.cost.true_counts import FEEDBACK, MEMORY, WORK
from fgsynth.cost.true_size import COLUMNS, PEAKS
from fgsynth.data.disk import nicopp
from fgsynth.data.disk.real import published_counts
from fgsynth.generate.methods import methods, sets, table_4_rows
from fgsynth.generate.plan import Method, missing_per_group
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import read_csv

SHARE = 0.25
"""Of a data sheet's operations per second that are assumed to be reached: a guess of ours, not measured."""
HARDNESS = 4 * 1000 * 2048**2 / 2**30
"""GiB of hardness's precision matrices: 1,000 classes of ResNeXt-50's 2,048 numbers, in float32."""
RESERVE = 2.0
"""GiB of a card that are left to the driver, the kernels' own memory and fragments: a guess of ours."""


@dataclass(frozen=True)
class Card:
    """A card by its data sheet: GB of memory, dense TFLOP/s of convolutions on float32 numbers.

    full: of TF32 where the card has it, as PyTorch's convolutions use it by default. The half-precision
    peak is `true_size.PEAKS`.
    """

    gb: float
    full: float


CARDS = {"V100": Card(16, 15.7), "RTX 4090": Card(24, 82.6), "A100": Card(80, 156.0), "H100": Card(80, 494.5)}
GPUS = (1, 8, 64)
GUIDES = {"imagenet_lt": "resnext50_32x4d", "nicopp": "resnet50"}
"""Places-LT's ResNet-152 is not counted: beside the denoiser a guide's work is a thousandth."""
TABLES = {"1 and 6": "imagenet_lt", "2": "places_lt", "3": "nicopp", "4": "imagenet_lt"}
"""Of FG, by number, and the benchmark of each."""
LARGEST_GROUP = 811
"""Of NICO++'s training images, as printed; the groups' own counts depend on the split."""


@dataclass(frozen=True)
class Counted:
    """Tables of true_counts and, if there, of true_size."""

    work: pd.DataFrame
    memory: pd.DataFrame
    measured: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> "Counted":
        """The tables in a folder. Raises UserError for a damaged one, and where nothing was counted."""
        wanted = {"work": WORK, "memory": MEMORY, "true_size": COLUMNS}
        found = {}
        for name, columns in wanted.items():
            path = folder / f"{name}.csv"
            found[name] = read_csv(path) if path.is_file() else pd.DataFrame(columns=columns)
            if list(found[name].columns) != columns:
                raise UserError(f"{path} has other columns than {', '.join(columns)}: write it anew.")
        if found["work"].empty or found["memory"].empty:
            raise UserError(
                f"{folder} has no counts: write them by `python -m fgsynth true-size --count --out {folder}`."
            )
        return cls(*found.values())

    def seconds(self, card: str, guide: str, sampling: Sampling, method: Method) -> tuple[float, bool]:
        """Seconds of an image on a card, and whether they were measured there."""
        measured = self._measured(card, guide, sampling, method)
        if not math.isnan(measured):
            return measured, True
        once = evaluations(1, sampling, method)
        cost = self._cost(card, guide)
        return sum(getattr(once, name) * each for name, each in cost.items()), False

    def batch(self, gb: float, precision: str, gradient: str) -> int:
        """The largest batch that was counted and fits into so many GB, 0 where none does."""
        m = self.memory
        mine = m[(m["precision"] == precision) & (m["gradient"] == gradient)]
        fits = mine.loc[mine["gib"] <= gb * 1e9 / 2**30 - RESERVE, "batch"]
        return int(fits.max()) if len(fits) else 0

    def not_counted(self) -> float:
        """GiB at most that a measured process took beyond the count, NaN where none was measured."""
        both = self.measured.merge(self.memory, on=["precision", "gradient", "batch"])
        return float((both["peak_gib"] - both["gib"]).max())

    def _cost(self, card: str, guide: str) -> dict[str, float]:
        """Seconds of an evaluation of each kind by data sheet and assumed share."""
        mine = self.work[self.work["classifier"] == guide].set_index("evaluation")
        time = (mine["half_tflop"] / PEAKS[card] + mine["full_tflop"] / CARDS[card].full) / SHARE
        return {f.name: float(time[f.name]) for f in fields(Evaluations)}

    def _measured(self, card: str, guide: str, sampling: Sampling, method: Method) -> float:
        m = self.measured
        of_card = m["hardware"].astype(str).str.contains(card, regex=False)
        same = (m["classifier"] == guide) & (m["gradient"] == _gradient(sampling, method))
        mine = m[of_card & same & (m["steps"] == sampling.n_steps) & (m["precision"] != "float32")]
        return float(mine["seconds"].min()) if len(mine) else math.nan


def _gradient(sampling: Sampling, method: Method) -> str:
    if not method.criteria:
        return "none"
    return "exact" if sampling.through_network else "cheap"


@dataclass(frozen=True)
class Table:
    """Synthetic sets behind a table of the paper: images and method of each, at the printed sizes."""

    benchmark: str
    sampling: Sampling
    sets: tuple[tuple[int, Method], ...]

    @property
    def images(self) -> int:
        """Of all sets."""
        return sum(n for n, _ in self.sets)

    def hours(self, counted: Counted, card: str, gpus: int) -> float:
        """Hours of so many cards for all sets, one after the other."""
        guide, hours = GUIDES.get(self.benchmark, GUIDES["imagenet_lt"]), 0.0
        for n, method in self.sets:
            each, _ = counted.seconds(card, guide, self.sampling, method)
            hours += estimate(n, self.sampling, method, Calibration(card, {1: each})).hours(gpus)
        return hours


def tables(root: Path, *, exact: bool) -> dict[str, Table]:
    """FG tables 1 to 4 and 6 by number, filled and sampled as params.yaml says at scale paper."""
    given = params.load(root / "params.yaml").model_copy(update={"scale": "paper"})
    made = {}
    for number, benchmark in TABLES.items():
        block = given.overrides(benchmark)["sampling"]
        s: Sampling = validated(Sampling, {**block, "through_network": exact}, "sampling")
        if number == "4":
            n = given.overrides("ablations")["table_per_class"] * len(published_counts(root, benchmark))
            each = tuple((n, way) for way in table_4_rows(s).values())
        else:
            n = missing_images(root, benchmark, s.fill_to)
            each = tuple((n, way) for way, _ in sets(benchmark, {}, s).values())
        made[number] = Table(benchmark, s, each)
    return made


def missing_images(root: Path, benchmark: str, fill_to: int | None) -> int:
    """Images that fill a benchmark, None to its largest class or group (FG step 4)."""
    if benchmark == nicopp.NAME:
        groups = len(nicopp.class_names()) * len(nicopp.CONTEXTS)
        # The largest group gets its one image too; if others were as large, it would be one more each.
        return groups * (fill_to or LARGEST_GROUP) - nicopp.PRINTED["train"] + 1
    return int(missing_per_group(published_counts(root, benchmark), fill_to).sum())


def batches_markdown(counted: Counted) -> str:
    """What fits: the largest batch by memory, precision and gradient."""
    lines = ["| memory | denoiser and encoders in | no feedback | cheap gradient | exact gradient |"]
    lines.append("| --- | --- |" + " ---: |" * len(FEEDBACK))
    for gb in sorted({card.gb for card in CARDS.values()}):
        for precision in dict.fromkeys(counted.memory["precision"]):
            sizes = (counted.batch(gb, precision, gradient) for gradient in FEEDBACK)
            cells = " | ".join(str(n) if n else "does not fit" for n in sizes)
            lines.append(f"| {gb:g} GB | {precision} | {cells} |")
    tried = ", ".join(str(n) for n in sorted(set(counted.memory["batch"])))
    caption = (
        f"Largest batch of {tried} that one card holds by count, {RESERVE:g} GiB of it left free, guided by "
        f"entropy or loss; hardness takes {HARDNESS:.0f} GiB besides on ImageNet-LT."
    )
    if counted.not_counted() > 0:
        caption += (
            f" What kernels take for themselves is not counted: measured processes (on a CPU) held up to "
            f"{counted.not_counted():.1f} GiB more. Try a batch with `true-size` before a long run."
        )
    return "\n".join([*lines, "", caption])


def seconds_markdown(counted: Counted, root: Path) -> str:
    """Seconds per image by card and gradient, guided by ImageNet-LT's classifier."""
    lines = [
        "| card | no feedback | cheap gradient | exact gradient | |",
        "| --- |" + " ---: |" * 3 + " --- |",
    ]
    for card in CARDS:
        cells, how = [], set()
        for exact, name in ((True, TEXT_IMAGE), (False, FG_ENTROPY), (True, FG_ENTROPY)):
            s = tables(root, exact=exact)["1 and 6"].sampling
            each, measured = counted.seconds(card, GUIDES["imagenet_lt"], s, methods(s)[name])
            cells.append(_digits(each))
            how.add("measured" if measured else "estimate")
        lines.append(f"| {card} | {' | '.join(cells)} | {', '.join(sorted(how))} |")
    return "\n".join(lines)


def hours_markdown(counted: Counted, root: Path) -> str:
    """Hours of synthesis behind every table on 1, 8 and 64 cards, by gradient."""
    kinds: Mapping[str, dict[str, Table]] = {
        "exact": tables(root, exact=True),
        "cheap": tables(root, exact=False),
    }
    titles = [f"{kind}, {n} card{'s' * (n > 1)}" for kind in kinds for n in GPUS]
    lines = [f"| FG table | sets | images | card | {' | '.join(titles)} |"]
    lines.append("| --- | ---: | ---: | --- |" + " ---: |" * len(titles))
    for number in TABLES:
        one = kinds["exact"][number]
        for card in CARDS:
            cells = [_digits(kind[number].hours(counted, card, n)) for kind in kinds.values() for n in GPUS]
            lines.append(f"| {number} | {len(one.sets)} | {one.images:,} | {card} | {' | '.join(cells)} |")
    return "\n".join(lines)


def blocks(root: Path) -> dict[str, str]:
    """The tables of docs/cluster.md by their mark. Raises UserError where nothing was counted."""
    counted = Counted.read(root / "reports" / "true_size")
    return {
        "batches": batches_markdown(counted),
        "seconds": f"{seconds_markdown(counted, root)}\n\n{_caption()}",
        "hours": hours_markdown(counted, root),
    }


def _caption() -> str:
    return (
        f"Estimates are counted operations at {SHARE:.0%} of the dense peaks in the makers' data sheets "
        "(assumed, not measured): half precision for the denoiser, TF32 or else float32 for decoder and "
        "guide. A row says `measured` where `true-size` was run on that card."
    )


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"

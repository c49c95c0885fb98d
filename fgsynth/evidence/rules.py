"""The papers' claims as rules: what a benchmark gave, and the evidence that each claim rests on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import log

import pandas as pd

from fgsynth.config import names
from fgsynth.config.names import BALANCED_SOFTMAX, FG_ENTROPY, FILL_UP, TEXT, TEXT_IMAGE, UNGUIDED, variant
from fgsynth.evaluate.metrics import Bootstrap, Interval
from fgsynth.evidence.ledger import by_seed, over, paired


@dataclass(frozen=True)
class Evidence:
    """A difference over paired seeds that the claim says is positive; None where it was not run."""

    what: str
    value: Interval | Bootstrap | None

    def __str__(self) -> str:
        match self.value:
            case None:
                return f"{self.what}: not run"
            case Bootstrap(mean, low, high):
                return f"{self.what}: {mean:+.1f} [{low:+.1f}, {high:+.1f}]"
            case Interval(mean, half_width, n):
                return f"{self.what}: {mean:+.1f} ± {half_width:.1f} ({n} seeds)"


@dataclass(frozen=True)
class Ours:
    """What one benchmark gave at its largest scale: tidy results and paired comparisons."""

    rows: pd.DataFrame
    compared: pd.DataFrame

    def over(self, method: str, reference: str, metric: str) -> Bootstrap | None:
        """The bootstrap interval of method - reference over seeds and test images; None where not run.

        Where only the opposite difference was written down, it is that one turned round. Raises UserError
        for a method that there is not.
        """
        names.check((method, reference), "A rule")
        for a, b, sign in ((method, reference, 1), (reference, method, -1)):
            c = self.compared
            mine = c[(c["method"] == a) & (c["reference"] == b) & (c["metric"] == metric)]
            if len(mine):
                mean, low, high = sign * mine.iloc[0][["mean", "low", "high"]].astype(float)
                return Bootstrap(mean, min(low, high), max(low, high))
        return None

    def paired(self, method: str, reference: str, metric: str) -> Interval | None:
        """Student's interval of method - reference over paired seeds, as `over`."""
        names.check((method, reference), "A rule")
        return paired(self.rows, metric, method, reference)


@dataclass(frozen=True)
class Rule:
    """How a claim is decided: what its benchmark gave -> evidence.

    own_scales: the scales at which the paper's own experiment is run in full; only there can a
    claim be reproduced, elsewhere its direction can hold.
    """

    stage: str
    benchmark: str
    evidence: Callable[[Ours], list[Evidence]]
    own_scales: tuple[str, ...] = ("paper",)


def toy_plane(ours: Ours) -> list[Evidence]:
    """C15: more minority samples, higher minority accuracy, a straighter boundary.

    Against no guidance: that synthesis alone does it would not be the claim.
    """
    share, accuracy, tilt = "minority_share", "minority_accuracy", "boundary_tilt"
    guided, unguided, real = names.PLANE_FG["entropy"], names.PLANE_UNGUIDED, names.REAL_ONLY
    differences = [
        ("minority share of samples, points over unguided", share, guided, unguided),
        ("minority accuracy, points over real only", accuracy, guided, real),
        ("minority accuracy, points over real + unguided", accuracy, guided, unguided),
        ("boundary tilt taken away from real only, degrees", tilt, real, guided),
        ("boundary tilt taken away from real + unguided, degrees", tilt, unguided, guided),
    ]
    return [Evidence(what, ours.paired(more, less, metric)) for what, metric, more, less in differences]


def fill_up(ours: Ours) -> list[Evidence]:
    """C1: over the best earlier method with synthetic data, Fill-Up; what is run here stands beside it."""
    return _few_over(ours, (BALANCED_SOFTMAX, names.CRT, FILL_UP))


def mislas(ours: Ours) -> list[Evidence]:
    """C3: over the best earlier method on Places-LT, in print MiSLAS: over each of them."""
    return _few_over(ours, (names.LWS, BALANCED_SOFTMAX, names.BALMS, names.RESLT, names.MISLAS, FILL_UP))


def _few_over(ours: Ours, earlier: Iterable[str]) -> list[Evidence]:
    return [Evidence(f"Few, points over {m}", ours.over(FG_ENTROPY, m, "few")) for m in earlier]


def worst_group(ours: Ours) -> list[Evidence]:
    """C4: over the best earlier method on NICO++, in print CRT: over each of them."""
    metric = "worst_group_accuracy"
    real = (names.ERM, names.MIXUP, names.GROUP_DRO, names.IRM, names.LISA, BALANCED_SOFTMAX, names.CRT)
    found = {m: ours.over(FG_ENTROPY, m, metric) for m in real}
    return [Evidence(f"worst-group accuracy, points over {m}", value) for m, value in found.items()]


ABOUT_TWICE = 1.9
"""Fill-Up has twice as many images, up to the rounding of classes that lack few."""


def half_as_many(ours: Ours) -> list[Evidence]:
    """C2: over Fill-Up with half of its synthetic images."""
    theirs, fewer = (by_seed(ours.rows, m, "n_synthetic") for m in (FILL_UP, FG_ENTROPY))
    return [
        *_few_over(ours, (FILL_UP,)),
        Evidence(f"images of Fill-Up beyond {ABOUT_TWICE} times FG's", over(theirs - ABOUT_TWICE * fewer)),
    ]


def combined(ours: Ours) -> list[Evidence]:
    """C16: VL-LTR with synthetic images over VL-LTR alone, on Few and Medium as printed."""
    both, alone = names.FG_VL_LTR, names.VL_LTR
    return [Evidence(f"{m}, points over {alone}", ours.over(both, alone, m)) for m in ("few", "medium")]


def criteria(ours: Ours) -> list[Evidence]:
    """C5: entropy over the two others, overall and on Few."""
    return [
        Evidence(f"{metric}, points over {other}", ours.over(FG_ENTROPY, other, metric))
        for other in (names.FG_LOSS, names.FG_HARDNESS)
        for metric in ("overall", "few")
    ]


def feedback(ours: Ours) -> list[Evidence]:
    """C6: over text alone, as printed, and over the same sampler without feedback, which the paper lacks."""
    others = {TEXT: TEXT, UNGUIDED: "the same sampler without feedback"}
    return [
        Evidence(f"{metric}, points over {what}", ours.over(FG_ENTROPY, other, metric))
        for other, what in others.items()
        for metric in ("overall", "few")
    ]


def image_condition(ours: Ours) -> list[Evidence]:
    """C7: lower FID, higher density; in the mini world also nearer to the real world's hidden factors."""
    nearer = "total variation from the real world taken away, points"
    return [
        Evidence("FID taken away from text", ours.paired(TEXT, TEXT_IMAGE, "fid")),
        Evidence("density gained over text", ours.paired(TEXT_IMAGE, TEXT, "density")),
        Evidence(nearer, ours.paired(TEXT, TEXT_IMAGE, "distance")),
        Evidence("recognised as the class, points over text", ours.paired(TEXT_IMAGE, TEXT, "recognised")),
    ]


MARGIN = 10
"""Points of recognisability that diversity may cost."""


def embedding_dropout(ours: Ours) -> list[Evidence]:
    """C8: more coverage and Few accuracy; also more combinations of hidden factors, of the same class."""
    half, none = (variant(UNGUIDED, "p", p) for p in (0.5, 0))
    gained = ours.paired(half, none, "covered")
    cost = by_seed(ours.rows, half, "recognised") - by_seed(ours.rows, none, "recognised")
    return [
        Evidence("coverage gained", ours.paired(UNGUIDED, TEXT_IMAGE, "coverage")),
        Evidence("Few, points over no dropout", ours.paired(UNGUIDED, TEXT_IMAGE, "few_val_accuracy")),
        Evidence("hidden-factor combinations covered, over no dropout", gained),
        Evidence(f"recognised as the class, points over no dropout, + {MARGIN}", over(cost + MARGIN)),
    ]


def unpredicted(ours: Ours) -> list[Evidence]:
    """C9: entropy has a worse FID than hardness and a higher accuracy."""
    worse, better = FG_ENTROPY, names.FG_HARDNESS
    return [
        Evidence("FID of entropy over hardness", ours.paired(worse, better, "fid")),
        Evidence("coverage of hardness over entropy", ours.paired(better, worse, "coverage")),
        Evidence("accuracy of entropy over hardness, points", ours.paired(worse, better, "avg_val_accuracy")),
    ]


def amounts(ours: Ours) -> list[Evidence]:
    """C11: Few rises from none to a full set of synthetic images, and more than Many does."""
    none, quarter, full = (variant(FG_ENTROPY, "amount", a) for a in (0, 0.25, 1))
    few, many = (by_seed(ours.rows, full, m) - by_seed(ours.rows, none, m) for m in ("few", "many"))
    return [
        Evidence("Few, points from none to a full set", ours.over(full, none, "few")),
        Evidence("Few, points from a quarter to a full set", ours.over(full, quarter, "few")),
        Evidence("gain of Few over that of Many, points", over(few - many)),
    ]


def weights(ours: Ours) -> list[Evidence]:
    """C12: from plain cross entropy to balanced softmax Few and Medium rise, Many falls."""
    plain, balanced = (variant(FG_ENTROPY, "weight", w) for w in (0, 1))
    return [
        Evidence("Few gained, points", ours.over(balanced, plain, "few")),
        Evidence("Medium gained, points", ours.over(balanced, plain, "medium")),
        Evidence("Many lost, points", ours.over(plain, balanced, "many")),
    ]


BEST = 0.03
"""The best coefficient, as printed."""


def coefficients(ours: Ours) -> list[Evidence]:
    """C13: every coefficient raises the worst group over 0, and 0.03 most."""
    metric = "worst_group_accuracy"
    parsed = [names.parse(method) for method in ours.rows["method"].unique()]
    tested = sorted(w for name, setting, w in parsed if (name, setting) == (FG_ENTROPY, "w") and w > 0)

    def over(w: float, other: float) -> Bootstrap | None:
        return ours.over(variant(FG_ENTROPY, "w", w), variant(FG_ENTROPY, "w", other), metric)

    raised = [Evidence(f"w = {w:g} over 0, points", over(w, 0)) for w in tested]
    best = [Evidence(f"w = {BEST:g} over {w:g}, points", over(BEST, w)) for w in tested if w != BEST]
    return raised + best or [Evidence("worst-group accuracy over w = 0", None)]


def mixed(ours: Ours) -> list[Evidence]:
    """C14: entropy alone over a criterion drawn per sample."""
    mix = names.FG_COMBINED
    return [Evidence(f"overall, points over {mix}", ours.over(FG_ENTROPY, mix, "overall"))]


HALF_WAY, SUFFICES = 50, 0.8
"""Guiding every 5th step is as good as guiding every step if samples go at least half of the way with it (%)
and the criterion rises by four fifths as much."""


def every_fifth(ours: Ours) -> list[Evidence]:
    """C10, with the paper's exact gradient and the same total push; entropies in % of the largest, ln 24."""
    compared = (UNGUIDED, names.EXACT_FIFTH, names.EXACT_EVERY)
    base, fifth, every = (100 * by_seed(ours.rows, m, "entropy") / log(24) for m in compared)
    return [
        Evidence("entropy raised by every-step guidance, %", over(every - base)),
        Evidence(
            f"entropy raised beyond {SUFFICES} of that, %", over(fifth - base - SUFFICES * (every - base))
        ),
        Evidence(
            f"% of the way gone with every-step guidance, beyond {HALF_WAY}",
            over(by_seed(ours.rows, names.EXACT_FIFTH, "kept") - HALF_WAY),
        ),
    ]


CHOSEN = names.CHOSEN_SAMPLER
"""LS at mini scale: the latent sampler that validation prefers, draw by draw."""


def latent(ours: Ours) -> list[Evidence]:
    """C17, on the mini world: real + synthetic features over linear probes without synthetic ones."""
    return [
        Evidence(f"{metric}, points over {other} on real features", ours.paired(CHOSEN, other, metric))
        for other in (names.ERM, BALANCED_SOFTMAX)
        for metric in ("overall", "few")
    ]


def linear_only(ours: Ours) -> list[Evidence]:
    """C18, on the mini world's scenes: over balanced softmax, and over fine-tuning of all weights."""
    others = {BALANCED_SOFTMAX: f"{BALANCED_SOFTMAX} on real features", names.FINE_TUNED: "fine-tuning"}
    return [
        Evidence(f"overall, points over {what}", ours.paired(CHOSEN, other, "overall"))
        for other, what in others.items()
    ]


RULES = {
    "C1": Rule("imagenet_lt", "imagenet_lt", fill_up),
    "C2": Rule("baselines", "imagenet_lt", half_as_many),
    "C3": Rule("places_lt", "places_lt", mislas),
    "C4": Rule("nicopp", "nicopp", worst_group),
    "C5": Rule("imagenet_lt", "imagenet_lt", criteria),
    "C6": Rule("imagenet_lt", "imagenet_lt", feedback),
    "C7": Rule("ablations", "ablations", image_condition, own_scales=()),
    "C8": Rule("ablations", "ablations", embedding_dropout, own_scales=()),
    "C9": Rule("ablations", "ablations", unpredicted, own_scales=()),
    "C10": Rule("ablations", "ablations", every_fifth, own_scales=()),
    "C11": Rule("imagenet_lt", "imagenet_lt", amounts),
    "C12": Rule("imagenet_lt", "imagenet_lt", weights),
    "C13": Rule("nicopp", "nicopp", coefficients),
    "C14": Rule("imagenet_lt", "imagenet_lt", mixed),
    "C15": Rule("toy_2d", "toy_2d", toy_plane, own_scales=("mini", "full", "paper")),
    "C16": Rule("baselines", "imagenet_lt", combined),
    "C17": Rule("latent_probe", "imagenet_lt_features", latent, own_scales=()),
    "C18": Rule("latent_probe", "places_lt_features", linear_only, own_scales=()),
}
"""Claims without a rule stand in the table as not run."""

"""The papers' claims as rules: what a benchmark gave, and the evidence that each claim rests on."""

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import pandas as pd

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

        Where only the opposite difference was written down, it is that one turned round.
        """
        for a, b, sign in ((method, reference, 1), (reference, method, -1)):
            c = self.compared
            mine = c[(c["method"] == a) & (c["reference"] == b) & (c["metric"] == metric)]
            if len(mine):
                mean, low, high = sign * mine.iloc[0][["mean", "low", "high"]].astype(float)
                return Bootstrap(mean, min(low, high), max(low, high))
        return None

    def paired(self, method: str, reference: str, metric: str) -> Interval | None:
        """Student's interval of method - reference over paired seeds; None where not run."""
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
    differences = [
        ("minority share of samples, points over unguided", share, "entropy", "unguided"),
        ("minority accuracy, points over real only", accuracy, "entropy", "real only"),
        ("minority accuracy, points over real + unguided", accuracy, "entropy", "unguided"),
        ("boundary tilt taken away from real only, degrees", tilt, "real only", "entropy"),
        ("boundary tilt taken away from real + unguided, degrees", tilt, "unguided", "entropy"),
    ]
    return [Evidence(what, ours.paired(more, less, metric)) for what, metric, more, less in differences]


FG, SAME, LDM = "LDM-FG (Entropy)", "LDM (txt, img, dropout)", "LDM (txt)"
"""SAME is the sampler of FG without its feedback."""


def table_4(image: int, dropout: int, feedback: str) -> str:
    """A row of FG table 4; all have text."""
    return f"text 1, image {image}, dropout {dropout}, feedback {feedback}"


def fill_up(ours: Ours) -> list[Evidence]:
    """C1: over the best earlier method with synthetic data, Fill-Up; what is run here stands beside it."""
    earlier = [
        Evidence(f"Few, points over {m}", ours.over(FG, m, "few")) for m in ("Decouple-cRT", "Fill-Up")
    ]
    return [Evidence("Few, points over Balanced Softmax", ours.over(FG, "Balanced Softmax", "few")), *earlier]


def mislas(ours: Ours) -> list[Evidence]:
    """C3: over the best earlier method on Places-LT, in print MiSLAS: over each of them."""
    earlier = ("Decouple-LWS", "Balanced Softmax", "BALMS", "ResLT", "MiSLAS", "Fill-Up")
    return [Evidence(f"Few, points over {m}", ours.over(FG, m, "few")) for m in earlier]


def worst_group(ours: Ours) -> list[Evidence]:
    """C4: over the best earlier method on NICO++, in print CRT: over each of them."""
    name, metric = "LDM FG (Entropy)", "worst_group_accuracy"
    earlier = ("ERM", "Mixup", "GroupDRO", "IRM", "LISA", "BSoftmax", "CRT")
    return [Evidence(f"worst-group accuracy, points over {m}", ours.over(name, m, metric)) for m in earlier]


ABOUT_TWICE = 1.9
"""Fill-Up has twice as many images, up to the rounding of classes that lack few."""


def half_as_many(ours: Ours) -> list[Evidence]:
    """C2: over Fill-Up with half of its synthetic images."""
    theirs, fewer = by_seed(ours.rows, "Fill-Up", "n_synthetic"), by_seed(ours.rows, FG, "n_synthetic")
    return [
        Evidence("Few, points over Fill-Up", ours.over(FG, "Fill-Up", "few")),
        Evidence(f"images of Fill-Up beyond {ABOUT_TWICE} times FG's", over(theirs - ABOUT_TWICE * fewer)),
    ]


def combined(ours: Ours) -> list[Evidence]:
    """C16: VL-LTR with synthetic images over VL-LTR alone, on Few and Medium as printed."""
    both, alone = "LDM-FG (Entropy) + VL-LTR", "VL-LTR"
    return [Evidence(f"{m}, points over {alone}", ours.over(both, alone, m)) for m in ("few", "medium")]


def criteria(ours: Ours) -> list[Evidence]:
    """C5: entropy over the two others, overall and on Few."""
    return [
        Evidence(f"{metric}, points over {other}", ours.over(FG, f"LDM-FG ({other})", metric))
        for other in ("Loss", "Hardness")
        for metric in ("overall", "few")
    ]


def feedback(ours: Ours) -> list[Evidence]:
    """C6: over text alone, as printed, and over the same sampler without feedback, which the paper lacks."""
    names = {LDM: "LDM (txt)", SAME: "the same sampler without feedback"}
    return [
        Evidence(f"{metric}, points over {name}", ours.over(FG, other, metric))
        for other, name in names.items()
        for metric in ("overall", "few")
    ]


def image_condition(ours: Ours) -> list[Evidence]:
    """C7: lower FID, higher density; in the mini world also nearer to the real world's hidden factors."""
    text, both = "text", "text and image"
    t4_text, t4_both = table_4(0, 0, "none"), table_4(1, 0, "none")
    return [
        Evidence("FID taken away from text", ours.paired(t4_text, t4_both, "fid")),
        Evidence("density gained over text", ours.paired(t4_both, t4_text, "density")),
        Evidence(
            "total variation from the real world taken away, points", ours.paired(text, both, "distance")
        ),
        Evidence("recognised as the class, points over text", ours.paired(both, text, "recognised")),
    ]


MARGIN = 10
"""Points of recognisability that diversity may cost."""


def embedding_dropout(ours: Ours) -> list[Evidence]:
    """C8: more coverage and Few accuracy; also more combinations of hidden factors, of the same class."""
    with_dropout, without = table_4(1, 1, "none"), table_4(1, 0, "none")
    gained = ours.paired("dropout 0.5", "dropout 0.0", "covered")
    cost = by_seed(ours.rows, "dropout 0.5", "recognised") - by_seed(ours.rows, "dropout 0.0", "recognised")
    return [
        Evidence("coverage gained", ours.paired(with_dropout, without, "coverage")),
        Evidence("Few, points over no dropout", ours.paired(with_dropout, without, "few_val_accuracy")),
        Evidence("hidden-factor combinations covered, over no dropout", gained),
        Evidence(f"recognised as the class, points over no dropout, + {MARGIN}", over(cost + MARGIN)),
    ]


def unpredicted(ours: Ours) -> list[Evidence]:
    """C9: entropy has a worse FID than hardness and a higher accuracy."""
    worse, better = table_4(1, 1, "entropy"), table_4(1, 1, "hardness")
    return [
        Evidence("FID of entropy over hardness", ours.paired(worse, better, "fid")),
        Evidence("coverage of hardness over entropy", ours.paired(better, worse, "coverage")),
        Evidence("accuracy of entropy over hardness, points", ours.paired(worse, better, "avg_val_accuracy")),
    ]


def amounts(ours: Ours) -> list[Evidence]:
    """C11: Few rises from none to a full set of synthetic images, and more than Many does."""
    none, full = (f"{FG}, amount {a}" for a in (0.0, 1.0))
    few, many = (by_seed(ours.rows, full, m) - by_seed(ours.rows, none, m) for m in ("few", "many"))
    return [
        Evidence("Few, points from none to a full set", ours.over(full, none, "few")),
        Evidence("Few, points from a quarter to a full set", ours.over(full, f"{FG}, amount 0.25", "few")),
        Evidence("gain of Few over that of Many, points", over(few - many)),
    ]


def weights(ours: Ours) -> list[Evidence]:
    """C12: from plain cross entropy to balanced softmax Few and Medium rise, Many falls."""
    plain, balanced = (f"{FG}, weight {w}" for w in (0.0, 1.0))
    return [
        Evidence("Few gained, points", ours.over(balanced, plain, "few")),
        Evidence("Medium gained, points", ours.over(balanced, plain, "medium")),
        Evidence("Many lost, points", ours.over(plain, balanced, "many")),
    ]


def coefficients(ours: Ours) -> list[Evidence]:
    """C13: every coefficient raises the worst group over 0, and 0.03 most."""
    name, metric = "LDM FG (Entropy), w ", "worst_group_accuracy"
    tested = sorted({m.removeprefix(name) for m in ours.rows["method"] if m.startswith(name)} - {"0.0"})
    raised = [Evidence(f"w = {w} over 0, points", ours.over(name + w, f"{name}0.0", metric)) for w in tested]
    best = [
        Evidence(f"w = 0.03 over {w}, points", ours.over(f"{name}0.03", name + w, metric))
        for w in tested
        if w != "0.03"
    ]
    return raised + best or [Evidence("worst-group accuracy over w = 0", None)]


def mixed(ours: Ours) -> list[Evidence]:
    """C14: entropy alone over a criterion drawn per sample."""
    return [Evidence("overall, points over Combined", ours.over(FG, "LDM-FG (Combined)", "overall"))]


HALF_WAY, SUFFICES = 50, 0.8
"""Guiding every 5th step is as good as guiding every step if samples go at least half of the way with it (%)
and the criterion rises by four fifths as much."""


def every_fifth(ours: Ours) -> list[Evidence]:
    """C10, with the paper's exact gradient and the same total push; entropies in % of the largest, ln 24."""
    sparse, dense = "exact, every 5th", "exact, every step, w / 5"
    base, fifth, every = (100 * by_seed(ours.rows, m, "entropy") / log(24) for m in ("base", sparse, dense))
    return [
        Evidence("entropy raised by every-step guidance, %", over(every - base)),
        Evidence(
            f"entropy raised beyond {SUFFICES} of that, %", over(fifth - base - SUFFICES * (every - base))
        ),
        Evidence(
            f"% of the way gone with every-step guidance, beyond {HALF_WAY}",
            over(by_seed(ours.rows, sparse, "kept") - HALF_WAY),
        ),
    ]


CHOSEN = "sampler chosen on validation"
"""LS at mini scale: the latent sampler that validation prefers, draw by draw."""


def latent(ours: Ours) -> list[Evidence]:
    """C17, on the mini world: real + synthetic features over linear probes without synthetic ones."""
    return [
        Evidence(f"{metric}, points over {other} on real features", ours.paired(CHOSEN, other, metric))
        for other in ("cross entropy", "balanced softmax")
        for metric in ("overall", "few")
    ]


def linear_only(ours: Ours) -> list[Evidence]:
    """C18, on the mini world's scenes: over balanced softmax, and over fine-tuning of all weights."""
    names = {"balanced softmax": "balanced softmax on real features", "fine-tuned backbone": "fine-tuning"}
    return [
        Evidence(f"overall, points over {name}", ours.paired(CHOSEN, other, "overall"))
        for other, name in names.items()
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

"""The papers' claims as rules: which differences each predicts, on which benchmarks, beside which controls.

A rule lists comparisons; none knows a result. What the papers print is in data/paper.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import pandas as pd

from fgsynth.config import names
from fgsynth.config.names import BALANCED_SOFTMAX, FG_ENTROPY, FILL_UP, TEXT, TEXT_IMAGE, UNGUIDED, variant
from fgsynth.evidence.ledger import by_seed
from fgsynth.evidence.pieces import Comparison, Computed, Found, Role, correlation_with_accuracy

Asked = Comparison | Computed
WORST = "worst_group_accuracy"
IMAGENET, PLACES, NICO, ABLATION = "imagenet_lt", "places_lt", "nicopp", "ablations"
TABLES = {
    IMAGENET: "table1_imagenet_lt",
    PLACES: "table2_places_lt",
    NICO: "table3_nicopp",
    ABLATION: "table4_ablation",
}
"""The printed table of each benchmark."""
BEST = 0.03
"""The coefficient that FG prints as best."""
FILL_UP_EQUAL = variant(FILL_UP, "amount", 1)
"""Fill-Up at the number of images that FG has."""
Setup = Literal["protocol", "ours"]


@dataclass(frozen=True)
class Rule:
    """What decides a claim. setup: whether the paper's protocol is followed, or the set-up is ours."""

    asked: Callable[[Found], Sequence[Asked]]
    setup: Setup = "protocol"


def _compare(
    role: Role, benchmark: str, metrics: Iterable[str], method: str, references: Iterable[str], **changed: str
) -> list[Asked]:
    """A method over each reference by each metric, held to the benchmark's printed table."""
    fixed = {"table": TABLES.get(benchmark)} | changed
    return [
        Comparison(role, benchmark, metric, method, reference, **fixed)  # type: ignore[arg-type]
        for reference in references
        for metric in metrics
    ]


def fill_up(_: Found) -> list[Asked]:
    """C1: over the best earlier method with synthetic images on Few; table 1's other rows; no feedback."""
    earlier = (
        names.ERM,
        names.CRT,
        names.LWS,
        names.REMIX,
        BALANCED_SOFTMAX,
        names.CMO,
        names.GLMC,
        names.VL_LTR,
    )
    return [
        *_compare("printed", IMAGENET, ["few"], FG_ENTROPY, [FILL_UP]),
        *_compare("row", IMAGENET, ["few"], FG_ENTROPY, earlier),
        *_compare("control", IMAGENET, ["few"], FG_ENTROPY, [UNGUIDED, FILL_UP_EQUAL]),
    ]


def half_as_many(_: Found) -> list[Asked]:
    """C2: not worse than Fill-Up with half as many images; at an equal number as control."""
    ask = partial(_compare, metrics=["overall", "few"], test="not less", margin="as good")
    return [
        *ask("printed", IMAGENET, method=FG_ENTROPY, references=[FILL_UP]),
        *ask("control", IMAGENET, method=FG_ENTROPY, references=[FILL_UP_EQUAL]),
    ]


def mislas(_: Found) -> list[Asked]:
    """C3: over the best earlier method on Places-LT, in print MiSLAS; table 2's other rows; no feedback."""
    earlier = (names.ERM, names.LWS, BALANCED_SOFTMAX, names.RESLT, FILL_UP)
    return [
        *_compare("printed", PLACES, ["few"], FG_ENTROPY, [names.MISLAS]),
        *_compare("row", PLACES, ["few"], FG_ENTROPY, earlier),
        *_compare("control", PLACES, ["few"], FG_ENTROPY, [UNGUIDED]),
    ]


def worst_group(_: Found) -> list[Asked]:
    """C4: over the best earlier method on NICO++, in print CRT; table 3's other rows; unguided, DFR."""
    earlier = (names.ERM, names.MIXUP, names.GROUP_DRO, names.IRM, names.LISA, BALANCED_SOFTMAX)
    return [
        *_compare("printed", NICO, [WORST], FG_ENTROPY, [names.CRT]),
        *_compare("row", NICO, [WORST], FG_ENTROPY, earlier),
        *_compare("control", NICO, [WORST], FG_ENTROPY, [UNGUIDED, names.DFR]),
    ]


def criteria(_: Found) -> list[Asked]:
    """C5: entropy over the two other criteria, in tables 1, 2 and 3."""
    others = (names.FG_LOSS, names.FG_HARDNESS)
    return [
        *_compare("printed", IMAGENET, ["overall", "few"], FG_ENTROPY, others),
        *_compare("printed", PLACES, ["overall", "few"], FG_ENTROPY, others),
        *_compare("printed", NICO, [WORST], FG_ENTROPY, others),
    ]


def feedback(_: Found) -> list[Asked]:
    """C6: over text alone (tables 1, 3) and over the same sampler unguided (table 4, rows 3 and 6)."""
    table_4 = ["avg_val_accuracy", "few_val_accuracy"]
    return [
        *_compare("printed", IMAGENET, ["overall", "few"], FG_ENTROPY, [TEXT]),
        *_compare("printed", NICO, [WORST], FG_ENTROPY, [TEXT]),
        *_compare("printed", ABLATION, table_4, FG_ENTROPY, [UNGUIDED]),
        *_compare("control", IMAGENET, ["overall", "few"], FG_ENTROPY, [UNGUIDED]),
        *_compare("control", PLACES, ["overall", "few"], FG_ENTROPY, [UNGUIDED]),
        *_compare("control", NICO, [WORST], FG_ENTROPY, [UNGUIDED]),
    ]


def image_condition(_: Found) -> list[Asked]:
    """C7: lower FID and higher density than text; hidden factors and recognisability as controls."""
    return [
        *_compare("printed", ABLATION, ["fid"], TEXT, [TEXT_IMAGE]),
        *_compare("printed", ABLATION, ["density"], TEXT_IMAGE, [TEXT]),
        *_compare("control", ABLATION, ["distance"], TEXT, [TEXT_IMAGE]),
        *_compare("control", ABLATION, ["recognised"], TEXT_IMAGE, [TEXT]),
    ]


def embedding_dropout(_: Found) -> list[Asked]:
    """C8: coverage, FID and Few over no dropout, without losing the class."""
    kept = partial(_compare, test="not less", margin="recognised")
    return [
        *_compare("printed", ABLATION, ["coverage", "few_val_accuracy"], UNGUIDED, [TEXT_IMAGE]),
        *_compare("printed", ABLATION, ["fid"], TEXT_IMAGE, [UNGUIDED]),
        *kept("control", ABLATION, ["recognised"], UNGUIDED, [TEXT_IMAGE]),
    ]


def unpredicted(_: Found) -> list[Asked]:
    """C9: entropy has a worse FID than hardness and a higher accuracy; no measure ranks all methods."""
    correlations = [
        Computed(
            "control",
            ABLATION,
            f"rank correlation of {measure} with accuracy over methods",
            partial(correlation_with_accuracy, measure=measure),
            "equal",
            "correlation",
            bound=1,
        )
        for measure in ("fid", "density", "coverage")
    ]
    printed = _compare("printed", ABLATION, ["fid", "avg_val_accuracy"], FG_ENTROPY, [names.FG_HARDNESS])
    return [*printed, *correlations]


def every_fifth(_: Found) -> list[Asked]:
    """C10: at every 5th step like and as good as at every step, of the same coefficient and the same push."""
    fifth, every = names.EXACT_FIFTH, variant(names.EXACT_EVERY, "w", BEST)
    equal = partial(_compare, metrics=["avg_val_accuracy"], method=fifth, test="equal", margin="as good")
    kept, near = partial(by_seed, method=fifth), "% of the way from unguided to every-step images"
    return [
        *equal("printed", ABLATION, references=[every]),
        Computed("printed", ABLATION, near, partial(kept, metric="kept_same_w")),
        *equal("control", ABLATION, references=[names.EXACT_EVERY]),
        Computed("control", ABLATION, f"{near}, same total push", partial(kept, metric="kept")),
        *_compare("control", ABLATION, ["entropy"], fifth, [UNGUIDED]),
    ]


def amounts(found: Found) -> list[Asked]:
    """C11: overall and Few rise from none to a full set; no part of it is worse than none; Few gains most."""
    tested = _tested(found, IMAGENET, "amount")
    none, full = (variant(FG_ENTROPY, "amount", a) for a in (0, 1))
    parts = [variant(FG_ENTROPY, "amount", a) for a in tested if 0 < a < 1]
    return [
        *_compare("printed", IMAGENET, ["overall", "few"], full, [none]),
        *(c for part in parts for c in _compare("control", IMAGENET, ["few"], part, [none])),
        Computed("control", IMAGENET, "gain of Few - gain of Many, none to full", _few_over_many),
    ]


def _few_over_many(rows: pd.DataFrame) -> pd.Series:
    none, full = (variant(FG_ENTROPY, "amount", a) for a in (0, 1))
    few, many = (by_seed(rows, full, m) - by_seed(rows, none, m) for m in ("few", "many"))
    return few - many


def weights(_: Found) -> list[Asked]:
    """C12: from plain cross entropy to balanced softmax Few, Medium and overall rise, Many falls."""
    plain, balanced = (variant(FG_ENTROPY, "weight", w) for w in (0, 1))
    return [
        *_compare("printed", IMAGENET, ["few", "medium", "overall"], balanced, [plain]),
        *_compare("printed", IMAGENET, ["many"], plain, [balanced]),
    ]


def coefficients(found: Found) -> list[Asked]:
    """C13: every coefficient over 0 on the worst group, and 0.03 over the others."""
    at = {w: variant(FG_ENTROPY, "w", w) for w in _tested(found, NICO, "w") or (0, BEST)}
    zero, best = variant(FG_ENTROPY, "w", 0), variant(FG_ENTROPY, "w", BEST)
    raised = [m for w, m in at.items() if w > 0]
    others = [m for w, m in at.items() if w not in (0, BEST)]
    return [
        *(c for method in raised for c in _compare("printed", NICO, [WORST], method, [zero])),
        *_compare("printed", NICO, [WORST], best, others),
    ]


def _tested(found: Found, benchmark: str, setting: str) -> list[float]:
    """The values of a setting at which the method was run."""
    parsed = [names.parse(method) for method in found.rows(benchmark)["method"].unique()]
    return sorted(value for name, varied, value in parsed if (name, varied) == (FG_ENTROPY, setting))


def mixed(_: Found) -> list[Asked]:
    """C14: entropy alone over a criterion drawn per sample."""
    ask = partial(_compare, method=FG_ENTROPY, references=[names.FG_COMBINED], table="table6_combined")
    return [*ask("printed", IMAGENET, metrics=["overall"]), *ask("row", IMAGENET, metrics=["few"])]


def toy_plane(_: Found) -> list[Asked]:
    """C15: more minority samples, a higher minority accuracy, a straighter boundary, all by the feedback.

    Controls: unguided samples; loss in place of entropy; the printed coefficient, as ours is a chosen one.
    """
    plane, guided, unguided, real = "toy_2d", names.PLANE_FG["entropy"], names.PLANE_UNGUIDED, names.REAL_ONLY
    share, accuracy, tilt = ["minority_share"], ["minority_accuracy"], ["boundary_tilt"]
    weak = variant(guided, "w", BEST)
    return [
        *_compare("printed", plane, share, guided, [unguided]),
        *_compare("printed", plane, accuracy, guided, [real]),
        *_compare("printed", plane, tilt, real, [guided]),
        *_compare("control", plane, accuracy, guided, [unguided, names.PLANE_FG["loss"]]),
        *_compare("control", plane, tilt, unguided, [guided]),
        *_compare("control", plane, share, weak, [unguided]),
        *_compare("control", plane, accuracy, weak, [real, unguided]),
    ]


def combined(_: Found) -> list[Asked]:
    """C16: VL-LTR with guided images over VL-LTR alone, and over VL-LTR with unguided ones."""
    ask = partial(_compare, benchmark=IMAGENET, metrics=["few", "medium"], method=names.FG_VL_LTR)
    return [*ask("printed", references=[names.VL_LTR]), *ask("control", references=[names.UNGUIDED_VL_LTR])]


CHOSEN = names.CHOSEN_SAMPLER
"""LS: the latent sampler that validation prefers, draw by draw."""
FEATURES = ("digits_lt", "places_lt_features", "imagenet_lt_features")


def latent(_: Found) -> list[Asked]:
    """C17: the printed set is CIFAR-100-LT; on ours over a probe of real features tuned as well."""
    tuned = (BALANCED_SOFTMAX, names.TAU_CHOSEN)
    printed = _compare("printed", "cifar100_lt:100", ["overall"], CHOSEN, [names.ERM])
    ours = (_compare("control", b, ["overall", "few"], CHOSEN, tuned) for b in FEATURES)
    return [*printed, *(c for of in ours for c in of)]


def linear_only(_: Found) -> list[Asked]:
    """C18: the printed set is Places-LT; on ours as good as fine-tuning all weights."""
    equal = partial(_compare, test="equal", margin="as good")
    ours = (
        equal("control", b, ["overall"], CHOSEN, [names.FINE_TUNED])
        for b in ("places_lt_features", "imagenet_lt_features")
    )
    printed = _compare("printed", "places365_lt", ["overall"], CHOSEN, [names.ERM])
    return [*printed, *(c for of in ours for c in of)]


RULES = {
    "C1": Rule(fill_up),
    "C2": Rule(half_as_many),
    "C3": Rule(mislas),
    "C4": Rule(worst_group),
    "C5": Rule(criteria),
    "C6": Rule(feedback),
    "C7": Rule(image_condition),
    "C8": Rule(embedding_dropout),
    "C9": Rule(unpredicted),
    "C10": Rule(every_fifth),
    "C11": Rule(amounts),
    "C12": Rule(weights),
    "C13": Rule(coefficients),
    "C14": Rule(mixed),
    "C15": Rule(toy_plane, "ours"),
    "C16": Rule(combined),
    "C17": Rule(latent, "ours"),
    "C18": Rule(linear_only, "ours"),
}
"""By claim of data/paper/claims.csv."""

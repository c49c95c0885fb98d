"""One name per method: rules, ledger, notebooks and figures take it from here.

A method has the name that FG table 1 prints, or table 2 or 3 where it is not in that; how another table
prints it stands in data/paper/tables.yaml. A method at another setting is a `variant`.
"""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

from fgsynth.utils.errors import UserError

Kind = Literal["set", "loop", "path", "objective", "second stage", "reference", "features", "probe"]


METHODS: dict[str, tuple[Kind, str]] = {}
"""Every method by its name: what it is of, and who proposed it.

"set", how synthetic images are made; "loop", a set made in parts; "path", a set and how its gradient is
computed; "objective" and "second stage" of training; "reference", what methods are held against; "features",
how synthetic features are made; "probe", a classifier of real features.
"""


def _named(name: str, kind: Kind, source: str = "here") -> str:
    METHODS[name] = kind, source
    return name


TEXT = _named("LDM (txt)", "set", "FG")
TEXT_IMAGE = _named("LDM (txt and img)", "set", "FG")
UNGUIDED = _named("LDM (txt, img, dropout)", "set", "FG")
"""The sampler of FG without its feedback, which FG table 4 has alone."""
FG_LOSS = _named("LDM-FG (Loss)", "set", "FG")
FG_HARDNESS = _named("LDM-FG (Hardness)", "set", "FG")
FG_ENTROPY = _named("LDM-FG (Entropy)", "set", "FG")
FG_COMBINED = _named("LDM-FG (Combined)", "set", "FG")
FG = {"loss": FG_LOSS, "hardness": FG_HARDNESS, "entropy": FG_ENTROPY}
"""Feedback-guided methods by criterion."""
FILL_UP = _named("Fill-Up", "set", "Shin et al. 2023")
FG_VL_LTR = _named("LDM-FG (Entropy) + VL-LTR", "set", "FG")
UNGUIDED_VL_LTR = _named(f"{UNGUIDED} + VL-LTR", "set")

ERM = _named("ERM", "objective", "Vapnik 1992")
BALANCED_SOFTMAX = _named("Balanced Softmax", "objective", "Ren et al. 2020")
REMIX = _named("Remix", "objective", "Chou et al. 2020")
CMO = _named("CMO (3 experts)", "objective", "Park et al. 2022")
GLMC = _named("Mix-Up GLMC", "objective", "Du et al. 2023")
VL_LTR = _named("VL-LTR", "objective", "Tian et al. 2022")
RESLT = _named("ResLT", "objective", "Cui et al. 2022")
MIXUP = _named("Mixup", "objective", "Zhang et al. 2018")
GROUP_DRO = _named("GroupDRO", "objective", "Sagawa et al. 2020")
IRM = _named("IRM", "objective", "Arjovsky et al. 2019")
LISA = _named("LISA", "objective", "Yao et al. 2022")
LOGIT_ADJUSTMENT = _named("Logit adjustment", "objective", "Menon et al. 2021")
LDAM = _named("LDAM-DRW", "objective", "Cao et al. 2019")
CLASS_BALANCED = _named("Class-balanced loss", "objective", "Cui et al. 2019")
FOCAL = _named("Focal loss", "objective", "Lin et al. 2017")
RWG = _named("RWG", "objective", "Idrissi et al. 2022")
SUBG = _named("SUBG", "objective", "Idrissi et al. 2022")

CRT = _named("Decouple-cRT", "second stage", "Kang et al. 2020")
LWS = _named("Decouple-LWS", "second stage", "Kang et al. 2020")
TAU_NORMALISED = _named("Tau-normalised", "second stage", "Kang et al. 2020")
MISLAS = _named("MiSLAS", "second stage", "Zhong et al. 2021")
BALMS = _named("BALMS", "second stage", "Ren et al. 2020")
DFR = _named("DFR", "second stage", "Kirichenko et al. 2023")

REAL_ONLY = _named("real only", "reference")
"""Real images alone, by the recipe of the methods with synthetic ones."""
BALANCED_REAL = _named("balanced real", "reference")
"""As many real points, all modes equally frequent."""
FRESH_REAL = _named("real", "reference")
"""A fresh real set in place of a synthetic one."""
FRESH_REAL_RARE = _named("real, rarest classes", "reference")
TEXT_RARE = _named(f"{TEXT}, rarest classes", "reference")

PLANE_UNGUIDED = _named("DDPM", "set", "Ho et al. 2020")
PLANE_FG = {c: _named(f"DDPM-FG ({c.title()})", "set", "FG") for c in FG}
"""On the toy plane, whose diffusion has neither text nor image."""

PATHS = {
    (gradient, steps): _named(f"{FG_ENTROPY}, {gradient}, {steps}", "path")
    for gradient in ("exact", "cheap")
    for steps in ("every 5th", "reused", "every step")
}
"""By the gradient, through the denoiser or not, and the steps that it pushes."""
EXACT_FIFTH, EXACT_REUSED, EXACT_EVERY, CHEAP_FIFTH, CHEAP_REUSED, CHEAP_EVERY = PATHS.values()
LOSS_FIFTH = _named(f"{FG_LOSS}, exact, every 5th", "path", "FG")
HARDNESS_FIFTH = _named(f"{FG_HARDNESS}, exact, every 5th", "path", "FG")

BALD_HEADS = _named("BALD, epistemic heads", "set", "Hayden et al. 2025")
ALLOCATED = _named("allocated", "set")
ALLOCATED_WORST = _named("allocated to the worst", "set")
PROTOTYPE_FILTER = _named("filtered by prototype", "set")
UNGUIDED_MORE = _named(f"{UNGUIDED}, more images", "set")
CLOSED_LOOP = _named("closed loop", "loop", "FG, future work")
UNGUIDED_LOOP = _named("unguided loop", "loop")

for _name in (
    *("class gaussian", "tied gaussian", "distribution calibration", "kernel density"),
    *("gaussian mixture", "smote", "class gaussian, nearest half", "class gaussian, unit sphere"),
    *("shrunk means, tied covariance", "feature diffusion", *(f"feature diffusion, FG {c}" for c in FG)),
):
    _named(_name, "features", "LS")
NEAREST_MEAN = _named("nearest class mean", "probe")
SHRINKAGE_LDA = _named("shrinkage LDA", "probe", "Friedman 1989")
SHRINKAGE_LDA_CORRECTED = _named("shrinkage LDA, corrected", "probe")
SHRUNK_LDA = _named("shrinkage LDA, shrunk means", "probe", "Efron and Morris 1973")
WHITENED = _named("whitened probe, tau chosen", "probe")
NEAREST_NEIGHBOURS = _named("nearest neighbours", "probe")
TAU_CHOSEN = _named(f"{LOGIT_ADJUSTMENT}, tau chosen", "probe", "Menon et al. 2021")
FINE_TUNED = _named("fine-tuned backbone", "probe")
FULL_SET = _named("full balanced set", "reference")
CHOSEN_SAMPLER = _named("sampler chosen on validation", "features")
CHOSEN_OR_NONE = _named("synthetic features or none, chosen", "features")

SETTINGS = ("amount", "weight", "w", "p", "cycles")
"""What is varied: synthetic images times the missing ones, the weight of balanced softmax, the feedback
scale, dropout, parts of a closed loop."""
_VARIANT = re.compile(rf"(.+), ({'|'.join(SETTINGS)}) (\d+(?:\.\d+)?(?:e-\d+)?)")


def variant(name: str, setting: str, value: float) -> str:
    """The name of a method at another value of one of `SETTINGS`, as "LDM-FG (Entropy), w 0.1"."""
    return f"{name}, {setting} {value:g}"


def parse(name: str) -> tuple[str, str | None, float]:
    """The method, the setting that is varied and its value; (name, None, nan) where none is."""
    found = _VARIANT.fullmatch(name)
    return (found[1], found[2], float(found[3])) if found else (name, None, float("nan"))


BENCHMARKS = ("imagenet_lt", "places_lt", "nicopp")
_TARGET = re.compile(rf"(.*?)(?:_({'|'.join(BENCHMARKS)}))?(?:_([0-9]+))?", re.DOTALL)


class Target(NamedTuple):
    """What of a stage is run: all of it, or one of its benchmarks alone, or a further draw."""

    stage: str
    benchmark: str | None
    draw: int | None


def target(name: str) -> Target:
    """Stage, benchmark and draw of a name like "baselines_nicopp_2"; None for what it does not say."""
    stage, benchmark, draw = _TARGET.fullmatch(name).groups()  # type: ignore[union-attr]
    return Target(stage, benchmark, None if draw is None else int(draw))


def check(names: Iterable[str], source: str) -> None:
    """Raise UserError, naming `source`, for the first name that no method has."""
    for name in names:
        if parse(name)[0] not in METHODS:
            near = max(METHODS, key=lambda one: _likeness(name, one))
            raise UserError(f"{source}: there is no method '{name}'; the nearest name is '{near}'.")


def _likeness(a: str, b: str) -> float:
    return SequenceMatcher(None, a.casefold(), b.casefold()).ratio()

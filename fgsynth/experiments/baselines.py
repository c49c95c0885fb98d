"""The rows of FG tables 1 to 3 that others proposed, and those that a reader would miss, under one budget."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd

from fgsynth.config import names
from fgsynth.config.schema import Inversion
from fgsynth.experiments import fill_up
from fgsynth.experiments.experiment import Experiment
from fgsynth.experiments.second_stages import balanced_meta_softmax, normalised, refitted, retrained
from fgsynth.experiments.study import Row
from fgsynth.generate import methods as generate
from fgsynth.train.objective import Objective
from fgsynth.train.objectives.branches import CMO, ResLT
from fgsynth.train.objectives.grouped import IRM, LISA, RWG, SUBG, GroupDRO
from fgsynth.train.objectives.mixing import GLMC, Mixup, Remix
from fgsynth.train.objectives.reweighting import LDAM, ClassBalanced, Focal, LogitAdjustment
from fgsynth.train.objectives.vl_ltr import VLLTR
from fgsynth.train.recipe import Recipe
from fgsynth.train.second_stage import rescale
from fgsynth.utils.cache import model_digest
from fgsynth.utils.errors import UserError

TWICE = 2.0
"""Fill-Up's images, times FG's, as printed for ImageNet-LT (2.6 and 1.3 million)."""
_UNPRINTED = (
    names.LOGIT_ADJUSTMENT, names.LDAM, names.CLASS_BALANCED, names.FOCAL, names.TAU_NORMALISED
)  # fmt: skip
METHODS: dict[str, tuple[str, ...]] = {
    "imagenet_lt": (
        names.LWS, names.REMIX, names.CMO, names.GLMC, names.VL_LTR, names.FILL_UP,
        names.variant(names.FILL_UP, "amount", 1), names.FG_VL_LTR, names.UNGUIDED_VL_LTR, *_UNPRINTED,
    ),
    "places_lt": (names.LWS, names.RESLT, names.MISLAS, names.FILL_UP, *_UNPRINTED),
    "nicopp": (names.MIXUP, names.GROUP_DRO, names.IRM, names.LISA, names.RWG, names.SUBG, names.DFR),
}  # fmt: skip
"""The rows that others proposed by benchmark, and those that a reader would miss in its table."""
SHARED: dict[str, tuple[str, ...]] = {
    "imagenet_lt": (names.ERM, names.BALANCED_SOFTMAX, names.UNGUIDED, names.FG_ENTROPY),
    "places_lt": (names.ERM, names.UNGUIDED, names.FG_ENTROPY),
    "nicopp": (names.ERM, names.UNGUIDED, names.FG_ENTROPY),
}
"""The rows of the tables' own notebooks that those of `METHODS` are held against."""
OBJECTIVES: dict[str, Objective] = {
    names.REMIX: Remix(), names.CMO: CMO(), names.GLMC: GLMC(), names.RESLT: ResLT(),
    names.LOGIT_ADJUSTMENT: LogitAdjustment(), names.LDAM: LDAM(), names.CLASS_BALANCED: ClassBalanced(),
    names.FOCAL: Focal(), names.MIXUP: Mixup(), names.GROUP_DRO: GroupDRO(), names.IRM: IRM(),
    names.LISA: LISA(), names.RWG: RWG(), names.SUBG: SUBG(),
}  # fmt: skip
"""The objectives of rows that are nothing but one."""


@dataclass(frozen=True)
class Options:
    """Settings of the rows beyond the experiment's own.

    second_epochs: of second stages. inversion: how Fill-Up learns words. clip: VL-LTR's, hub id or folder;
    clip_rate: its learning rate, as the networks' own would undo what it knows; sentences: about a class.
    """

    second_epochs: int
    inversion: Inversion
    clip: str
    clip_rate: float
    sentences: tuple[str, ...] = VLLTR.sentences


def rows(
    exp: Experiment, benchmark: str, options: Options, methods: Sequence[str] | None = None
) -> dict[str, Row]:
    """Rows of FG table 1, 2 or 3 by name: `SHARED`, then those of others, and what a reader would miss.

    methods: the rows of others that are wanted; None: all of `METHODS`. Makes the synthetic images that are
    not there yet. On Places-LT FG has its second stage. On NICO++ the epoch of the best average validation
    accuracy is kept, learning rate and batch size are for `study.searched` to choose, and DFR fits the last
    layer to the images by which epochs are chosen too. Raises UserError for a row that there is not.
    """
    known = METHODS[benchmark]
    if unknown := [name for name in methods or () if name not in known]:
        raise UserError(
            f"methods.{benchmark}: baselines has no row '{unknown[0]}': choose of {', '.join(known)}."
        )
    if benchmark == "nicopp":
        exp = replace(exp, recipe=replace(exp.recipe, select="best_average_val"))
    built = _builders(exp, options, benchmark)
    return {name: built[name]() for name in (*SHARED[benchmark], *(known if methods is None else methods))}


def _builders(exp: Experiment, options: Options, benchmark: str) -> dict[str, Callable[[], Row]]:
    """Every row by name, not built yet: some make images."""
    erm, epochs = replace(exp.recipe, balanced=0.0), options.second_epochs
    known = generate.methods(exp.sampling)

    def filled(name: str) -> Row:
        second = balanced_meta_softmax(exp, epochs) if benchmark == "places_lt" else None
        return Row(exp.recipe, exp.synthetic(known[name]), second)

    def visual_text(name: str) -> Row:
        return Row(with_text(exp, options), exp.synthetic(known[name]))

    whole = TWICE if benchmark == "imagenet_lt" else 1.0
    return {
        names.ERM: lambda: Row(erm),
        names.BALANCED_SOFTMAX: lambda: Row(exp.recipe),
        **{name: partial(filled, name) for name in (names.UNGUIDED, names.FG_ENTROPY)},
        **{name: partial(Row, replace(erm, objective=one)) for name, one in OBJECTIVES.items()},
        names.VL_LTR: lambda: Row(with_text(exp, options)),
        names.FG_VL_LTR: lambda: visual_text(names.FG_ENTROPY),
        names.UNGUIDED_VL_LTR: lambda: visual_text(names.UNGUIDED),
        names.FILL_UP: lambda: filled_up(exp, options, whole),
        names.variant(names.FILL_UP, "amount", 1): lambda: filled_up(exp, options, 1.0),
        names.LWS: lambda: Row(erm, second=retrained(exp, epochs, rescale.lws)),
        names.MISLAS: lambda: Row(
            replace(erm, objective=Mixup()), second=retrained(exp, epochs, rescale.mislas)
        ),
        names.TAU_NORMALISED: lambda: Row(erm, second=normalised(exp)),
        names.DFR: lambda: Row(erm, second=refitted(exp)),
    }


def pairs(rows: Mapping[str, Row]) -> list[tuple[str, str]]:
    """FG against every row of others, and its combination with VL-LTR against its own two references."""
    theirs = [(names.FG_ENTROPY, name) for name in rows if name not in SHARED["imagenet_lt"]]
    both = [(names.FG_VL_LTR, other) for other in (names.VL_LTR, names.UNGUIDED_VL_LTR)]
    return theirs + [pair for pair in both if set(pair) <= set(rows)]


def with_text(exp: Experiment, options: Options) -> Recipe:
    """VL-LTR's recipe: the experiment's, with a CLIP in place of its network."""
    classes = exp.bench.manifest.classes
    method = VLLTR(options.clip, classes, options.sentences, digest=model_digest(options.clip))
    # AdamW as theirs, whatever the other rows have.
    return replace(exp.recipe, objective=method, optimiser="adamw", rate=options.clip_rate)


def filled_up(exp: Experiment, options: Options, whole: float) -> Row:
    """Fill-Up's row: balanced softmax, real images and `whole` times the missing ones, then real alone."""
    made = exp.synthetic(fill_up.fill_up(options.inversion), whole)
    return Row(exp.recipe, made, retrained(exp, options.second_epochs, fill_up.fine_tuned))


def costs(exp: Experiment, benchmark: str, rows: Mapping[str, Row], seeds: Sequence[int]) -> pd.DataFrame:
    """Tabulate the training of the rows of others: updates and images of a first stage, mean seconds.

    Seconds are of the machine that trained it, waiting for images included; of trainings kept in `work`.
    """
    table = []
    for name in (name for name in rows if name not in SHARED[benchmark]):
        row = rows[name]
        r = row.recipe
        updates = r.epochs * r.updates(len(exp.real), row.synthetic is not None)
        took = [exp.trainings.train(r, seed, row.synthetic).history["seconds"].sum() for seed in seeds]
        table.append((name, updates, updates * r.batch, sum(took) / len(took)))
    return pd.DataFrame(table, columns=["method", "updates", "images", "seconds"]).assign(benchmark=benchmark)

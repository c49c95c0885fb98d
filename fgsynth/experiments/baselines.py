"""The rows of FG tables 1 to 3 that others proposed, and those that a reader would miss, under one budget."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd

from fgsynth.config import names
from fgsynth.config.schema import Inversion
from fgsynth.experiments import fill_up
from fgsynth.experiments.experiment import Experiment
from fgsynth.experiments.second_stages import normalised, refitted, retrained
from fgsynth.experiments.study import Row
from fgsynth.generate.synthetic_set import SyntheticSet
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


def imagenet_lt(
    exp: Experiment,
    options: Options,
    guided: SyntheticSet,
    unguided: SyntheticSet,
    methods: Sequence[str] | None = None,
) -> dict[str, Row]:
    """Rows of FG table 1 by name, and what a reader would miss.

    guided, unguided: the sets of LDM-FG (Entropy) and of its sampler alone. methods: the rows that are
    wanted; None: all. ERM, Balanced Softmax, Decouple-cRT and FG's rows are notebook 04's. Makes Fill-Up's
    images where they are not there yet. Raises UserError for a row that there is not.
    """
    erm = replace(exp.recipe, balanced=0.0)

    def visual_text(made: SyntheticSet | None = None) -> Row:
        return Row(with_text(exp, options), made)

    rows: Rows = {
        names.LWS: lambda: Row(erm, second=retrained(exp, options.second_epochs, rescale.lws)),
        names.REMIX: lambda: Row(replace(erm, objective=Remix())),
        names.CMO: lambda: Row(replace(erm, objective=CMO())),
        names.GLMC: lambda: Row(replace(erm, objective=GLMC())),
        names.VL_LTR: visual_text,
        names.FILL_UP: lambda: filled_up(exp, options, TWICE),
        names.variant(names.FILL_UP, "amount", 1): lambda: filled_up(exp, options, 1.0),
        names.FG_VL_LTR: lambda: visual_text(guided),
        names.UNGUIDED_VL_LTR: lambda: visual_text(unguided),
    }
    return _wanted("imagenet_lt", rows | _unprinted(exp), methods)


def places_lt(exp: Experiment, options: Options, methods: Sequence[str] | None = None) -> dict[str, Row]:
    """Rows of FG table 2 by name, and what a reader would miss; as `imagenet_lt`.

    Fill-Up has as many images as FG here, as printed.
    """
    erm = replace(exp.recipe, balanced=0.0)
    epochs = options.second_epochs
    rows: Rows = {
        names.LWS: lambda: Row(erm, second=retrained(exp, epochs, rescale.lws)),
        names.RESLT: lambda: Row(replace(erm, objective=ResLT())),
        names.MISLAS: lambda: Row(
            replace(erm, objective=Mixup()), second=retrained(exp, epochs, rescale.mislas)
        ),
        names.FILL_UP: lambda: filled_up(exp, options, 1.0),
    }
    return _wanted("places_lt", rows | _unprinted(exp), methods)


def nicopp(exp: Experiment, methods: Sequence[str] | None = None) -> dict[str, Row]:
    """Rows of FG table 3 by name, and what a reader would miss; as `imagenet_lt`.

    The epoch of the best average validation accuracy is kept; learning rate and batch size are for
    `study.searched` to choose. DFR fits the last layer to the images by which epochs are chosen too.
    """
    erm = replace(exp.recipe, balanced=0.0, select="best_average_val")
    objectives = {
        names.MIXUP: Mixup(),
        names.GROUP_DRO: GroupDRO(),
        names.IRM: IRM(),
        names.LISA: LISA(),
        names.RWG: RWG(),
        names.SUBG: SUBG(),
    }
    rows: Rows = {name: partial(Row, replace(erm, objective=one)) for name, one in objectives.items()}
    return _wanted("nicopp", {**rows, names.DFR: lambda: Row(erm, second=refitted(exp))}, methods)


Rows = dict[str, Callable[[], Row]]
"""Rows by name, not built yet: some make images."""


def _wanted(benchmark: str, rows: Rows, methods: Sequence[str] | None) -> dict[str, Row]:
    known = METHODS[benchmark]
    if unknown := [name for name in methods or () if name not in known]:
        raise UserError(
            f"methods.{benchmark}: baselines has no row '{unknown[0]}': choose of {', '.join(known)}."
        )
    return {name: rows[name]() for name in (known if methods is None else methods)}


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


def costs(exp: Experiment, rows: Mapping[str, Row], seeds: Sequence[int]) -> pd.DataFrame:
    """Tabulate each row's training: method, updates and images of a first stage, seconds (mean over seeds).

    Seconds are of the machine that trained it, waiting for images included; of trainings kept in `work`.
    """
    table = []
    for name, row in rows.items():
        r = row.recipe
        updates = r.epochs * r.updates(len(exp.real), row.synthetic is not None)
        took = [exp.trainings.train(r, seed, row.synthetic).history["seconds"].sum() for seed in seeds]
        table.append((name, updates, updates * r.batch, sum(took) / len(took)))
    return pd.DataFrame(table, columns=["method", "updates", "images", "seconds"])


def _unprinted(exp: Experiment) -> Rows:
    """Long-tail methods that the tables lack."""
    erm = replace(exp.recipe, balanced=0.0)
    objectives = {
        names.LOGIT_ADJUSTMENT: LogitAdjustment(),
        names.LDAM: LDAM(),
        names.CLASS_BALANCED: ClassBalanced(),
        names.FOCAL: Focal(),
    }
    rows: Rows = {name: partial(Row, replace(erm, objective=one)) for name, one in objectives.items()}
    return {**rows, names.TAU_NORMALISED: lambda: Row(erm, second=normalised(exp))}

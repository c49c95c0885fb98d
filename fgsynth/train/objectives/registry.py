"""Objectives by name, and as JSON holds them."""

import json
from collections.abc import Mapping
from typing import Any

from fgsynth.train.objective import Objective
from fgsynth.train.objectives.branches import CMO, ResLT
from fgsynth.train.objectives.grouped import IRM, LISA, RWG, SUBG, GroupDRO
from fgsynth.train.objectives.mixing import GLMC, Mixup, Remix
from fgsynth.train.objectives.reweighting import (
    ERM,
    LDAM,
    BalancedSoftmax,
    ClassBalanced,
    Focal,
    LogitAdjustment,
)
from fgsynth.train.objectives.vl_ltr import VLLTR
from fgsynth.utils.errors import UserError

KINDS: tuple[type[Objective], ...] = (
    *(ERM, BalancedSoftmax, LogitAdjustment, ClassBalanced, Focal, LDAM),
    *(Mixup, Remix, CMO, GLMC, ResLT, VLLTR),
    *(GroupDRO, IRM, LISA, RWG, SUBG),
)
OBJECTIVES = {kind.name: kind for kind in KINDS}
"""Every objective by its name."""


def to_json(objective: Objective | None) -> dict[str, Any] | None:
    """Its name and hyper-parameters, tuples as lists; None, the default of a recipe, stays None."""
    if objective is None:
        return None
    # Through JSON, so that what a file holds is equal to what is asked for.
    return {"name": objective.name, **json.loads(json.dumps(vars(objective)))}


def of_json(values: Mapping[str, Any] | None) -> Objective | None:
    """The opposite of `to_json`. Raises UserError for an unknown name or hyper-parameter."""
    if values is None:
        return None
    settings = dict(values)
    name = settings.pop("name", None)
    if name not in OBJECTIVES:
        raise UserError(f"Unknown objective '{name}': choose {' or '.join(sorted(OBJECTIVES))}.")
    try:
        return OBJECTIVES[name](**settings)
    except TypeError as error:
        raise UserError(f"The objective '{name}' does not know these settings: {error}.") from error

"""Synthetic sets made ahead of a notebook: by workers that share a folder, or on a Ray cluster."""

from fgsynth.experiments.build import of_world, planned
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.engines import LOCAL, Engine
from fgsynth.generate.methods import sets
from fgsynth.utils.errors import UserError


def run(stage: str, engine: Engine = LOCAL, *, guide_only: bool = False) -> str:
    """Make the synthetic sets of a stage, at the scale of params.yaml; its notebook then finds them.

    guide_only: nothing but the classifier that guides, which several workers must find trained. Returns
    where they are. Raises UserError for a stage without sets or a missing guide, Stopped as `engines.fill`.
    """
    block = planned(stage).overrides(stage)
    keys = ("world", "sampling", "training", "work")
    if not set(keys) <= set(block):
        raise UserError(
            "Scale 'smoke' lives in the notebooks' own cells: set `scale` to mini, evening or paper."
        )
    exp = of_world(stage, *(block[key] for key in keys))
    _guide(exp, stage, engine)
    if guide_only:
        return f"The guide of {stage} is trained."
    lines = []
    for name, (method, whole) in sets(stage, block, exp.sampling).items():
        store, _ = exp.complete(method, whole, engine=engine)
        lines.append(f"{name}: {len(store.plan)} images in {len(store.parts())} shards, {store.folder}")
    return "\n".join(lines)


def _guide(exp: Experiment, stage: str, engine: Engine) -> None:
    """The guide, trained or loaded; two workers that train it at once may differ in its last bits."""
    if engine.workers > 1 and not exp.guide_is_there:
        raise UserError(
            f"Several workers need the guide of {stage} trained before: run "
            f"'python -m fgsynth synthesise {stage} --guide' first."
        )
    exp.guide  # noqa: B018, trained where it is not there

"""The stage `feedback_map`: the map with generators of two qualities, written to reports/map."""

import json
from pathlib import Path

from fgsynth.config import params
from fgsynth.experiments import phase_map
from fgsynth.experiments.early_generator import early
from fgsynth.generate.generator import Generator
from fgsynth.miniworld import judge
from fgsynth.pretrain.files import JUDGE
from fgsynth.train.train import Recipe
from fgsynth.utils import paths
from fgsynth.utils.errors import UserError

WORK = Path("data/work/map")


def draw_map(root: Path) -> None:
    """Runs the map by params.yaml and writes rows.csv, gains.csv and modes.csv.

    A stopped run goes on where it was. Raises UserError where the early generator of another recipe is there.
    """
    everything = params.load(root / "params.yaml")
    asked = everything.feedback_map
    work, conditioning = root / WORK, everything.pretrain.conditioning
    _same_recipe(work, asked, conditioning)
    late = Generator.load(paths.from_root(asked.sampling.generator), asked.sampling.n_steps)
    generators = {
        "late": late,
        "early": early(late, asked.early, conditioning, asked.early_images, work),
    }
    reader = judge.load(root / asked.sampling.generator / JUDGE)
    recipe = Recipe.of(asked.training)
    setup = phase_map.Setup(generators, reader, asked.sampling, recipe, asked.worlds, asked.seeds, work)
    rows = phase_map.run(setup)
    out = root / "reports" / "map"
    paths.write_text(out / "rows.csv", rows.to_csv(index=False, float_format="%.5g"))
    paths.write_text(out / "gains.csv", phase_map.gains(rows).to_csv(index=False, float_format="%.4g"))
    lost = phase_map.lost_to_rare_modes(rows).rename_axis("modes").reset_index(name="lost")
    paths.write_text(out / "modes.csv", lost.to_csv(index=False, float_format="%.4g"))


def _same_recipe(work: Path, asked: params.FeedbackMap, conditioning: params.Conditioning) -> None:
    """Neither the early generator nor images by it are found again by what it was trained with."""
    parts = [asked.early.model_dump(), asked.early_images, conditioning.model_dump()]
    file, recipe = work / "early.json", json.dumps(parts, indent=1) + "\n"
    if file.is_file() and file.read_text(encoding="utf-8") != recipe:
        raise UserError(
            f"{work} holds an early generator of another recipe: restore `feedback_map` and "
            "`pretrain.conditioning` in params.yaml or delete that folder."
        )
    paths.write_text(file, recipe)

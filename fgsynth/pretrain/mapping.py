"""The stage `feedback_map`: the map with generators of two qualities, written to reports/map."""

from pathlib import Path

from fgsynth import feedback_map, params, paths
from fgsynth.generator import Generator
from fgsynth.miniworld import judge
from fgsynth.pretrain.early import early
from fgsynth.pretrain.files import JUDGE
from fgsynth.training import Recipe

WORK = Path("data/work/map")


def draw_map(root: Path) -> None:
    """Runs the map by params.yaml and writes rows.csv and gains.csv. A stopped run goes on where it was."""
    everything = params.load(root / "params.yaml")
    asked = everything.feedback_map
    late = Generator.load(paths.from_root(asked.sampling.generator), asked.sampling.n_steps)
    work, conditioning = root / WORK, everything.pretrain.conditioning
    work.mkdir(parents=True, exist_ok=True)
    generators = {
        "late": late,
        "early": early(late, asked.early, conditioning, asked.early_pictures, work),
    }
    reader = judge.load(root / asked.sampling.generator / JUDGE)
    recipe = Recipe(**asked.training.model_dump())
    setup = feedback_map.Setup(generators, reader, asked.sampling, recipe, asked.worlds, asked.seeds, work)
    rows = feedback_map.run(setup)
    out = root / "reports" / "map"
    paths.write_text(out / "rows.csv", rows.to_csv(index=False, float_format="%.5g"))
    paths.write_text(out / "gains.csv", feedback_map.gains(rows).to_csv(index=False, float_format="%.4g"))
    lost = feedback_map.lost_to_rare_modes(rows).rename_axis("modes").reset_index(name="lost")
    paths.write_text(out / "modes.csv", lost.to_csv(index=False, float_format="%.4g"))

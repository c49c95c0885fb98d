import pandas as pd
import pytest
import yaml

from fgsynth.experiments import phase_map, phase_map_stage
from fgsynth.pretrain.files import FOLDER
from fgsynth.utils.errors import UserError

ROWS = pd.DataFrame(
    {
        "factor": "base", "value": "base", "world": [0, 0, 1, 1, 0], "seed": 0,
        "arm": ["unguided", "guided", "unguided", "guided", "real"],
        "few": [10.0, 12.0, 20.0, 24.0, 30.0], "few, common": [11.0, 12.0, 21.0, 22.0, 36.0],
    }
)  # fmt: skip


@pytest.fixture
def drawn(tmp_path, root, monkeypatch):
    """Draws the map in a folder of its own, without any training; gives back what was asked for."""
    asked = []
    monkeypatch.setattr(phase_map_stage, "early", lambda *given: asked.append(given) or "early generator")
    monkeypatch.setattr(phase_map, "run", lambda setup: asked.append(setup) or ROWS)
    monkeypatch.setattr(phase_map_stage.Generator, "load", lambda *_: "late generator")
    (tmp_path / FOLDER).parent.mkdir(parents=True)
    (tmp_path / FOLDER).symlink_to(root / FOLDER)
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)

    def draw(**changes):
        raw = yaml.safe_load((root / "params.yaml").read_text())
        raw["feedback_map"] |= changes
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
        phase_map_stage.draw_map(tmp_path)
        return asked

    return draw


def test_the_map_is_written_to_three_files(drawn, tmp_path):
    (late, *_), setup = drawn(worlds=5)
    assert late == "late generator"
    assert setup.generators == {"late": "late generator", "early": "early generator"}
    assert (setup.worlds, setup.work) == (5, tmp_path / phase_map_stage.WORK)
    folder = tmp_path / "reports" / "map"
    assert sorted(p.name for p in folder.iterdir()) == ["gains.csv", "modes.csv", "rows.csv"]
    pd.testing.assert_frame_equal(pd.read_csv(folder / "rows.csv"), ROWS, check_dtype=False)
    gained = pd.read_csv(folder / "gains.csv")
    assert gained[["metric", "mean", "n"]].to_numpy().tolist() == [["few", 3, 2], ["few, common", 1, 2]]
    assert (folder / "modes.csv").read_text() == "modes,lost\nbase,6\n"


def test_an_early_generator_of_another_recipe_is_refused(drawn, tmp_path):
    drawn()
    drawn(seeds=7)  # no part of it
    before = (tmp_path / "reports/map/rows.csv").stat().st_mtime_ns
    with pytest.raises(UserError, match=r"data/work/map holds an early generator of another recipe: restore"):
        drawn(early_images=19)
    assert (tmp_path / "reports/map/rows.csv").stat().st_mtime_ns == before

import shutil
from types import SimpleNamespace

import pandas as pd

from fgsynth.cost import evening
from fgsynth.pipeline import commands as cli
from fgsynth.pipeline import mapping
from fgsynth.utils.paths import read_json

ROWS = pd.DataFrame(
    {
        "factor": "base",
        "value": "base",
        "world": 2,
        "seed": [4, 4],
        "arm": ["guided", "unguided"],
        "few": [3.0, 1],
    }
)


def test_a_draw_tells_what_it_takes_and_is_published_and_gathered(root, tmp_path, monkeypatch, capsys):
    shutil.copy(root / "params.yaml", tmp_path)
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evening.estimate, "total", lambda *_: (1000, 20, 0.25))
    drawn = []
    monkeypatch.setattr(
        mapping,
        "of_params",
        lambda p, at, draw: drawn.append((at, draw)) or SimpleNamespace(run=lambda: ROWS),
    )
    assert cli.main(["feedback-map", "2"]) == 0
    assert drawn == [(tmp_path, 2)]
    assert capsys.readouterr().out.startswith("feedback_map: 2,000 images, 40 updates, 0.5 hours")
    made = tmp_path / "reports" / "evening" / "feedback_map_2"
    pd.testing.assert_frame_equal(pd.read_csv(made / "rows.csv"), ROWS, check_dtype=False)
    assert read_json(made / "run.json")["seconds"] >= 0
    assert cli.main(["feedback-map"]) == 0
    assert pd.read_csv(tmp_path / "reports" / "map" / "gains.csv")["mean"].tolist() == [2]

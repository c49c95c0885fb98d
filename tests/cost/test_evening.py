import json

import pytest

from fgsynth.config.blocks import read
from fgsynth.config.stages import NOTEBOOKS
from fgsynth.cost import estimate, evening


@pytest.fixture
def stages(root):
    return read(root / evening.STAGES)["stages"]["evening"]


def test_a_target_is_a_stage_or_a_draw_of_one(stages):
    for target, of in stages["foreach"].items():
        stage, draw = evening.stage_and_draw(target)
        assert of == {"stage": stage, "notebook": NOTEBOOKS[stage]}
        assert (draw is None) == (stage in ("toy_2d", "latent_probe", "ablations"))


def test_what_was_run_is_told_from_what_is_left(root, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "total", lambda stage, *_: (1000, 20, {"nicopp": 2.0}.get(stage, 0.5)))
    listing = tmp_path / evening.STAGES
    listing.parent.mkdir(parents=True)
    listing.write_text((root / evening.STAGES).read_text())
    before = evening.listed(tmp_path).splitlines()
    assert before[-1] == "18 of 18 are to be run; those estimated take 9.0 hours."
    assert before[1].split() == ["toy_2d", "-", "-", "-", "-", "-"]
    ran = tmp_path / "reports" / "evening" / "nicopp_1" / "run.json"
    ran.parent.mkdir()
    ran.write_text(json.dumps({"seconds": 5400, "commit": "0123456789abcdef"}))
    after = evening.listed(tmp_path).splitlines()
    assert after[-1] == "17 of 18 are to be run; those estimated take 7.0 hours."
    assert "nicopp_1" not in evening.left(tmp_path)
    assert len(evening.left(tmp_path)) == 17
    (line,) = (line.split() for line in after if "nicopp_1" in line)
    assert line == ["nicopp_1", "1,000", "20", "2.0", "1.5", "012345678"]

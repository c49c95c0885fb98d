import json

import pytest

from fgsynth.beyond import phase_map
from fgsynth.config import names, params
from fgsynth.config.blocks import read
from fgsynth.config.stages import NOTEBOOKS
from fgsynth.cost import estimate, evening
from fgsynth.data.registry import WORLDS


@pytest.fixture
def stages(root):
    return read(root / evening.STAGES)["stages"]["evening"]


def test_a_target_is_a_stage_or_a_draw_of_one(stages):
    for target, of in stages["foreach"].items():
        stage, benchmark, draw = names.target(target)
        assert of == {"stage": stage, "notebook": NOTEBOOKS[stage]}
        assert (draw is None) == (stage in ("toy_2d", "latent_probe", "own_features", "ablations"))
        assert (benchmark is None) == (stage != "baselines")


def parts(root, stage, benchmark=None):
    return [(p.name, sorted(p.sets), dict(p.trainings)) for p in evening._parts(root, stage, benchmark)]


def test_what_a_stage_makes_and_trains_is_counted_from_its_parameters(root):
    p = params.load(root / "params.yaml").at("evening")
    assert parts(root, "toy_2d") == parts(root, "latent_probe") == []
    for stage in WORLDS:
        ((_, made, trained),) = parts(root, stage)
        assert (trained[True], trained[False]) == tuple(
            estimate._stage(stage, "evening").trainings[kind] for kind in (True, False)
        )
        assert set(made) == set(estimate._stage(stage, "evening").sets)
    table, steps = parts(root, "ablations")
    assert (len(table[1]), table[2][True], steps[2]) == (6, 6 * 3, {True: 9, False: 0})
    for stage in ("baselines", "beyond"):
        assert [name for name, *_ in parts(root, stage)] == [stage] * len(p.overrides(stage)["worlds"])
    first, second, groups = parts(root, "baselines")
    assert parts(root, "baselines", "places_lt") == [second]
    assert first[1] == sorted(["Fill-Up", "Fill-Up, amount 1", names.FG_ENTROPY, names.UNGUIDED])
    # Fourteen rows, two of them with images of their own, beside FG, its sampler, ERM and balanced softmax.
    assert first[2] == {True: 3 * (2 + 2), False: 3 * (12 + 2) + 1}
    draws = p.overrides("baselines")["draws"]
    assert groups[2] == {True: 2 * (3 + draws - 1), False: (7 + 1) * (3 + draws - 1) + 1}


def test_a_draw_of_the_map_is_counted_from_its_arms(root):
    s = params.load(root / "params.yaml").feedback_map
    cheap, exact = evening._parts(root, "feedback_map")
    n = sum(s.world.strata)
    images = [sum(one.images for one in estimate._estimates(p, {}).values()) for p in (cheap, exact)]
    # All sets, but for the half of one that is a half of another's.
    assert sum(images) == n * sum(phase_map.sizes(s).values()) - n * s.per_class // 2
    assert images[1] == n * s.per_class
    updates, *_ = estimate._training(cheap, {}, 0, True)
    assert updates == phase_map.trainings(s) * s.training.epochs * s.training.updates_per_epoch
    assert exact.trainings == {True: 0}


def test_what_was_run_is_told_from_what_is_left(root, tmp_path, monkeypatch):
    known = {"nicopp": 2.0}
    monkeypatch.setattr(evening, "_parts", lambda _, stage, __: [stage] if stage in WORLDS else [])
    monkeypatch.setattr(estimate, "total", lambda stage, *_: (1000, 20, known.get(stage, 0.5)))
    listing = tmp_path / evening.STAGES
    listing.parent.mkdir(parents=True)
    listing.write_text((root / evening.STAGES).read_text())
    before = evening.listed(tmp_path).splitlines()
    assert before[-1] == "21 of 21 are to be run; those estimated take 9.0 hours."
    assert before[1].split() == ["toy_2d", "-", "-", "-", "-", "-"]
    ran = tmp_path / "reports" / "evening" / "nicopp_1" / "run.json"
    ran.parent.mkdir()
    ran.write_text(json.dumps({"seconds": 5400, "commit": "0123456789abcdef"}))
    after = evening.listed(tmp_path).splitlines()
    assert after[-1] == "20 of 21 are to be run; those estimated take 7.0 hours."
    assert set(evening.targets(tmp_path).values()) - set(evening.left(tmp_path)) == {"evening@nicopp_1"}
    assert "map@feedback_map_0" in evening.left(tmp_path)
    (line,) = (line.split() for line in after if "nicopp_1" in line)
    assert line == ["nicopp_1", "1,000", "20", "2.0", "1.5", "012345678"]

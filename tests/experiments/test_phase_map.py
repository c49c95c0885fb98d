from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from dvc.utils.serialize import dump_yaml
from torch.nn.functional import cross_entropy

from fgsynth.config.blocks import read
from fgsynth.config.schema import Sampling
from fgsynth.data.sources import Images
from fgsynth.experiments import phase_map
from fgsynth.experiments.phase_map import BASE, Setup, calibrated, gains, lost_to_rare_modes, points, run
from fgsynth.experiments.trainings import Trainings
from fgsynth.generate import compose
from fgsynth.generate.generator import Generator
from fgsynth.miniworld import judge
from fgsynth.models.networks import small
from fgsynth.pretrain.files import FOLDER, JUDGE
from fgsynth.train.recipe import Recipe
from fgsynth.train.train import predict

SAMPLING = Sampling(
    generator=str(FOLDER), n_steps=2, every=1, through_network=False, cfg=3.0, cfg_text=1.5, noise_level=0,
    dropout=0.5, scales=dict.fromkeys(("entropy", "loss", "hardness", "combined"), 0.1), fill_to=2,
)  # fmt: skip
MOVES = {
    "appearance modes": {"modes"}, "real images": {"real"}, "feedback scale": {"scale", "steps"},
    "dropout": {"dropout"}, "guide": {"guide"}, "gradient": {"exact"}, "generator": {"generator"},
}  # fmt: skip


def moved(point, other=BASE):
    """Keys of the settings in which two points differ."""
    a, b = asdict(point), asdict(other)
    return {key for key in a.keys() - {"factor", "value"} if a[key] != b[key]}


def test_the_base_is_there_once_and_the_others_move_what_their_factor_says():
    first, *others = points()
    assert first == BASE
    assert {p.factor for p in others} == set(MOVES)
    for point in others:
        assert moved(point), "a second base"
        assert moved(point) <= MOVES[point.factor]
    assert len({(p.factor, p.value) for p in points()}) == len(points())


def test_halves_of_the_steps_are_compared_at_one_scale():
    by_name = {p.value: p for p in points() if p.factor == "feedback scale"}
    first, second = by_name["0.1, first half"], by_name["0.1, second half"]
    assert moved(first, by_name["0.1"]) == moved(second, by_name["0.1"]) == {"steps"}
    assert first.steps[1] == second.steps[0]
    assert (first.steps[0], second.steps[1]) == (0, None)


def test_appearances_have_shares_that_add_up_and_fall():
    for point in points():
        assert sum(point.modes) == pytest.approx(1)
        assert list(point.modes) == sorted(point.modes, reverse=True)


def rows(arm, few, value="base", factor="base", **more):
    """A row for each world and seed: `few` by world, then seed."""
    return [
        {"factor": factor, "value": value, "world": w, "seed": s, "arm": arm, "few": x, **more}
        for w, each in enumerate(few)
        for s, x in enumerate(each)
    ]


def test_gains_by_hand():
    table = pd.DataFrame(
        [
            *rows("guided", [[11.0, 22.0], [33.0, 44.0]]),
            *rows("unguided", [[10.0, 20.0], [30.0, 40.0]]),
            *rows("real", [[0.0, 0.0], [0.0, 0.0]]),
            *rows("guided", [[5.0], [5.0]], "0.1", "feedback scale"),
            *rows("unguided", [[6.0], [6.0]], "0.1", "feedback scale"),
        ]
    )
    # Pairs are found by world and seed, in whatever order the rows are.
    out = gains(table.sample(frac=1, random_state=1)).set_index(["factor", "value", "metric"])
    assert list(out.columns) == ["mean", "low", "high", "n"]
    base = out.loc[("base", "base", "few")]
    # Differences 1, 2, 3, 4; t(0.975, 3) = 3.1824.
    half = 3.1824 * np.sqrt(5 / 3) / 2
    assert base.tolist() == pytest.approx([2.5, 2.5 - half, 2.5 + half, 4], rel=1e-4)
    assert out.loc[("feedback scale", "0.1", "few")].tolist() == pytest.approx([-1, -1, -1, 2])
    assert len(out) == 2


def test_what_is_counted_in_a_set_has_one_difference_per_world():
    shared = pd.DataFrame(
        [*rows("guided", [[3.0, 3.0], [5.0, 5.0]]), *rows("unguided", [[1.0, 1.0], [1.0, 1.0]])]
    )
    counted = shared.rename(columns={"few": "few recognised"})
    assert gains(counted).set_index("metric").loc["few recognised", ["mean", "n"]].tolist() == [3.0, 2]
    assert gains(shared).set_index("metric").loc["few", "n"] == 4


def test_gains_leave_out_what_a_point_does_not_have():
    nothing = {"few, rare": float("nan")}
    alone = [*rows("guided", [[3.0, 4.0]], **nothing), *rows("unguided", [[1.0, 2.0]], **nothing)]
    out = gains(pd.DataFrame(alone))
    assert out[["metric", "mean", "n"]].to_numpy().tolist() == [["few", 2, 2]]
    more = [*rows("guided", [[3.0]], "0.1", **{"few, rare": 5.0}),
            *rows("unguided", [[1.0]], "0.1", **{"few, rare": 1.0})]  # fmt: skip
    out = gains(pd.DataFrame([*alone, *more])).set_index(["value", "metric"])
    assert out["mean"].to_dict() == {("base", "few"): 2, ("0.1", "few"): 2, ("0.1", "few, rare"): 4}


def test_what_is_lost_to_rare_modes_by_hand():
    tail, factor = "90 5 3 2 %", "appearance modes"
    table = pd.DataFrame(
        [
            *rows("real", [[40.0], [20.0]], **{"few, common": 50.0}),
            *rows("real", [[10.0], [20.0]], tail, factor, **{"few, common": 60.0}),
            *rows("guided", [[0.0], [0.0]], tail, factor, **{"few, common": 99.0}),
            *rows("real", [[0.0], [0.0]], "0.0", "dropout", **{"few, common": 99.0}),
        ]
    )
    assert lost_to_rare_modes(table).to_dict() == {"base": 20, tail: 45}


@pytest.fixture
def overconfident():
    """A network whose logits are ten times too large, and labels drawn from a tenth of them."""
    network = small(3, width=16).eval()
    x = torch.randint(256, (300, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        layer = network.network.get_classifier()
        logits = predict(network, Images(x, torch.zeros(300).long()))
        scale = 10 / logits.std()
        layer.weight.mul_(scale)
        layer.bias.sub_(logits.mean(0)).mul_(scale)
    share = ((logits - logits.mean(0)) * scale / 10).softmax(1)
    label = torch.multinomial(share, 1, generator=torch.Generator().manual_seed(1)).squeeze(1)
    return network, Images(x, label)


def test_calibration_lowers_the_validation_loss_and_leaves_the_prediction(overconfident):
    network, val = overconfident
    before = predict(network, val)
    made = calibrated(network, val)
    after = predict(made, val)
    assert torch.equal(after.argmax(1), before.argmax(1))
    least = min(cross_entropy(before / t, val.label).item() for t in np.geomspace(0.2, 20, 50))
    assert cross_entropy(after, val.label).item() <= least + 1e-4 < cross_entropy(before, val.label).item()
    assert made.temperature.item() == pytest.approx(10, rel=0.3)
    x = torch.zeros(2, 3, 32, 32)
    assert torch.equal(made(x)[1], network(x)[1])
    assert not any(p.requires_grad for p in made.parameters())


def test_calibration_keeps_what_happens_to_images_ahead_of_the_network(overconfident):
    network, val = overconfident
    network.prepare = torch.nn.Hardtanh(-0.1, 0.1)
    made, x = calibrated(network, val), torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
    assert torch.equal(made(x)[1], network(x)[1])


@pytest.fixture
def setup(root, tmp_path, monkeypatch):
    """Two points, the base and another guide, on a tail of few images."""
    guide = replace(BASE, factor="guide", value="calibrated ERM", guide="calibrated ERM")
    monkeypatch.setattr(phase_map, "points", lambda: [BASE, guide])
    recipe = Recipe(network="slim", epochs=1, updates_per_epoch=2, batch=16, counts="batch")
    generators = {"late": Generator.load(root / FOLDER, SAMPLING.n_steps)}
    reader = judge.load(root / FOLDER / JUDGE)
    return Setup(generators, reader, SAMPLING, recipe, 1, 1, tmp_path, strata=(1, 1, 22), n_val=3)


def test_a_tiny_map_has_a_row_for_every_arm_and_is_not_made_twice(setup, monkeypatch):
    made = run(setup)
    assert made[["value", "arm"]].apply(tuple, axis=1).tolist() == [
        *(("base", arm) for arm in ("unguided", "real", "text", "text and image", "guided")),
        *(("calibrated ERM", arm) for arm in ("unguided", "guided")),
    ]
    accuracies = made[["overall", "many", "medium", "few", "balanced", "few, balanced", "few, common"]]
    assert ((accuracies >= 0) & (accuracies <= 100)).all(axis=None)
    counted = made.set_index("arm")[["recognised", "rare_share", "covered", "few recognised"]]
    assert counted.loc["real"].isna().all()
    assert counted.drop(index="real").notna().all(axis=None)
    # Both points are unguided alike; another guide makes another set.
    assert len(list((setup.work / "late/imagenet_lt/synthetic").iterdir())) == 5
    assert set(gains(made)["metric"]) == {*made.columns} - {"factor", "value", "world", "seed", "arm"}

    monkeypatch.setattr(compose, "synthesise", None)
    monkeypatch.setattr("fgsynth.train.train._run", None)
    assert run(setup).equals(made)


@pytest.mark.parametrize(("kind", "balanced"), [("ERM", 0.0), ("calibrated ERM", 0.0), ("balanced", 1.0)])
def test_a_guide_is_trained_as_its_point_says(setup, monkeypatch, kind, balanced):
    asked, network = [], small(24).eval()
    monkeypatch.setattr(
        Trainings,
        "train",
        lambda trainings, *given: asked.append(given) or SimpleNamespace(network=network),
    )
    guide = phase_map._experiment(setup, replace(BASE, guide=kind), 0).guide
    ((recipe, seed),) = asked
    assert recipe == replace(setup.recipe, balanced=balanced)
    assert seed >= 1_000_000  # none of a classifier's
    assert (guide is network) == (kind != "calibrated ERM")


DRAWN = pd.DataFrame(
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
    monkeypatch.setattr(phase_map, "early", lambda *given: asked.append(given) or "early generator")
    monkeypatch.setattr(phase_map, "run", lambda setup: asked.append(setup) or DRAWN)
    monkeypatch.setattr(phase_map.Generator, "load", lambda *_: "late generator")
    (tmp_path / FOLDER).parent.mkdir(parents=True)
    (tmp_path / FOLDER).symlink_to(root / FOLDER)
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)

    def draw(**changes):
        raw = read(root / "params.yaml")
        raw["feedback_map"] |= changes
        dump_yaml(tmp_path / "params.yaml", raw)
        phase_map.draw_map(tmp_path)
        return asked

    return draw


def test_the_map_is_written_to_three_files(drawn, tmp_path):
    (late, *_), setup = drawn(worlds=5)
    assert late == "late generator"
    assert setup.generators == {"late": "late generator", "early": "early generator"}
    assert (setup.worlds, setup.work) == (5, tmp_path / phase_map.WORK)
    folder = tmp_path / "reports" / "map"
    assert sorted(p.name for p in folder.iterdir()) == ["gains.csv", "modes.csv", "rows.csv"]
    pd.testing.assert_frame_equal(pd.read_csv(folder / "rows.csv"), DRAWN, check_dtype=False)
    gained = pd.read_csv(folder / "gains.csv")
    assert gained[["metric", "mean", "n"]].to_numpy().tolist() == [["few", 3, 2], ["few, common", 1, 2]]
    assert (folder / "modes.csv").read_text() == "modes,lost\nbase,6\n"

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_bench import bench, no_generator
from torch import nn

from fgsynth.config.schema import Groups, Sampling
from fgsynth.data import mini
from fgsynth.evaluate import tables
from fgsynth.evaluate.metrics import paired_interval
from fgsynth.evaluate.scores import evaluate
from fgsynth.experiments import study
from fgsynth.experiments.experiment import Experiment
from fgsynth.experiments.study import Row, Scored
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.models.networks import Classifier, with_last_layer
from fgsynth.pretrain.files import FOLDER
from fgsynth.train.recipe import Recipe
from fgsynth.utils.errors import UserError

RECIPE = Recipe(epochs=1, updates_per_epoch=2, batch=8)
# Medium and few; group 2 is empty in test.
GROUPS = bench({"train": (15, 5, 2, 1), "val": (1, 1, 1, 1), "test": (2, 2, 0, 2)}, ("dim", "rock"))
LABEL = np.array([0, 0, 0, 0, 1, 1])


def experiment(of=GROUPS, **changes):
    given = {"generator": no_generator(), "sampling": None, "recipe": RECIPE, "work": None}
    return Experiment(of, **{**given, **changes})


def scored(method, *hits, seeds=(0, 1), of=GROUPS, label=LABEL):
    predicted = np.where(np.array(hits, dtype=bool), label, 1 - label)
    return Scored(method, seeds, 7, predicted, tuple(evaluate(of, p, "test") for p in predicted))


#               group:  0  0  1  1  3  3
A = scored("ERM", (1, 1, 1, 0, 1, 1), (1, 0, 1, 1, 1, 0))
B = scored("IRM", (1, 0, 1, 1, 0, 0), (1, 1, 1, 1, 0, 1))


def compared(metric, pair=(A, B), of=GROUPS):
    rows = study.compare(experiment(of), {s.method: s for s in pair}, [("ERM", "IRM")], "test", [metric])
    return rows.iloc[0]


@pytest.mark.parametrize(
    ("metric", "difference"),
    [
        ("overall", 100 * (9 - 8) / 12),
        ("average_accuracy", 100 * (9 - 8) / 12),
        ("medium", (75 + 75) / 2 - (75 + 100) / 2),
        ("few", (100 + 50) / 2 - (0 + 50) / 2),
        ("worst_group_accuracy", (50 + 50) / 2 - (0 + 50) / 2),
    ],
)
def test_differences_by_hand(metric, difference):
    row = compared(metric)
    assert row["mean"] == pytest.approx(difference)
    assert row["low"] <= row["mean"] <= row["high"]
    wide = study.table([A, B]).groupby("method")[metric].mean()
    assert wide["ERM"] - wide["IRM"] == pytest.approx(difference)  # what the table says
    assert row[["method", "reference", "metric"]].tolist() == ["ERM", "IRM", metric]
    assert (row["benchmark"], row["seeds"], row["split"]) == ("tiny", 2, "test")


def test_equally_large_classes_are_drawn_from_within():
    """One class always right, the other always wrong: most of what varies is how many of each are drawn."""
    even = bench({"train": (30, 3), "test": (4, 4)})
    label = np.repeat([0, 1], 4)
    a, b = (
        scored(m, hits, hits, seeds=(0, 1), of=even, label=label)
        for m, hits in (("ERM", 1 - label), ("IRM", label))
    )
    row = compared("overall", (a, b), even)
    without = paired_interval(a.predicted == label, b.predicted == label, np.zeros(8, dtype=int))
    assert row["mean"] == without.mean == 0
    assert row["high"] == -row["low"] < without.half_width / 3


def test_comparisons_are_ready_to_be_written_and_leave_out_empty_strata():
    rows = study.compare(experiment(), {"ERM": A, "IRM": B}, [("ERM", "IRM"), ("IRM", "ERM")], "test")
    assert rows["metric"].tolist() == ["overall", "medium", "few"] * 2
    tables.check_comparisons(rows.assign(scale="smoke"), "here")
    there, back = rows["mean"].iloc[:3].to_numpy(), rows["mean"].iloc[3:].to_numpy()
    np.testing.assert_allclose(there, -back)


def test_other_seeds_cannot_be_paired():
    with pytest.raises(UserError, match="ERM and IRM were trained with other seeds: pair them"):
        compared("overall", (A, replace(B, seeds=(0, 2))))


def test_the_table_has_a_row_per_method_and_seed():
    wide = study.table([A, B])
    assert wide[["method", "seed"]].apply(tuple, axis=1).tolist() == [
        ("ERM", 0),
        ("ERM", 1),
        ("IRM", 0),
        ("IRM", 1),
    ]
    assert wide["n_synthetic"].tolist() == [7.0] * 4
    assert wide["overall"].tolist() == pytest.approx([500 / 6, 400 / 6, 300 / 6, 500 / 6])
    rows = study.results(experiment(), wide, "test", "last")
    tables.check(rows.assign(scale="smoke"), "here")
    assert set(rows["metric"]) >= {"n_synthetic", "worst_group_accuracy", "modes, few, rare"}
    assert "many" not in set(rows["metric"])  # an empty stratum


def test_a_classifier_is_trained_and_evaluated_for_every_seed(tmp_path):
    exp = experiment(work=tmp_path)
    out = study.scores(exp, {"ERM": Row(RECIPE)}, [3, 4], "test")["ERM"]
    assert (out.method, out.seeds, out.n_synthetic, out.predicted.shape) == ("ERM", (3, 4), 0, (2, 6))
    for seed, predicted, nested in zip(out.seeds, out.predicted, out.nested, strict=True):
        written = json.loads((exp.trainings.folder(RECIPE, seed) / "scores-test.json").read_text())
        assert written["overall"] == nested["overall"] == pytest.approx(100 * (predicted == LABEL).mean())
        assert written["many"] is None
    made = exp.trainings.images("val")
    more = SyntheticSet(pd.DataFrame({"label": made.label}), made.x, "few")
    assert study.scores(exp, {"both": Row(RECIPE, more)}, [3], "test")["both"].n_synthetic == 4
    assert (exp.trainings.folder(RECIPE, 3, more) / "scores-test.json").is_file()


def test_a_second_stage_has_scores_of_its_own(tmp_path):
    exp, asked = experiment(work=tmp_path), []

    def always_one(real, made, network, seed):
        asked.append((len(real), made, seed))
        layer = nn.Linear(128, 2)
        layer.weight.data.zero_()
        layer.bias.data = torch.tensor([0.0, 1.0])
        return with_last_layer(network, layer)

    rows = {"cRT": Row(RECIPE, second=always_one), "ERM": Row(RECIPE)}
    scored = study.scores(exp, rows, [0, 1], "test")
    assert list(scored) == ["cRT", "ERM"]
    assert asked == [(23, None, 0), (23, None, 1)]
    assert (scored["cRT"].predicted == 1).all()
    folder = exp.trainings.folder(RECIPE, 0)
    assert json.loads((folder / "scores-test-cRT.json").read_text())["few"] == 100
    assert json.loads((folder / "scores-test.json").read_text())["few"] == scored["ERM"].nested[0]["few"]
    assert np.load(folder / "predicted-test.npy").tolist() == scored["ERM"].predicted[0].tolist()


def test_second_stages_get_the_synthetic_images_of_their_row_in_other_processes_too(tmp_path, monkeypatch):
    monkeypatch.setattr("fgsynth.experiments.trainings.WORTH", 0)
    exp = experiment(work=tmp_path)
    made = SyntheticSet(pd.DataFrame({"label": [0, 1]}), torch.zeros(2, 32, 32, 3, dtype=torch.uint8), "two")

    def keep(real, made, network, seed):
        assert (len(real), len(made)) == (23, 2)
        return network

    rows = {"kept": Row(RECIPE, made, keep), "plain": Row(RECIPE, made)}
    scored = study.scores(exp, rows, [0, 1], "test")
    assert scored["kept"].predicted.tolist() == scored["plain"].predicted.tolist()


def test_a_search_takes_the_draw_of_the_best_average_validation():
    tried = {False: [], True: []}

    def train(recipe, seed, synthetic):
        mine = tried[synthetic is not None]
        mine.append(recipe)
        return SimpleNamespace(average_val=([50, 70, 60] if synthetic else [50, 60, 70])[len(mine) - 1])

    ahead, made = [], object()
    exp = SimpleNamespace(seed=0, trainings=SimpleNamespace(train=train, train_all=ahead.extend))
    rows = {"real": Row(RECIPE), "both": Row(RECIPE, made)}
    found = study.searched(exp, rows, 3, [-4, -2], [3, 4])
    assert ahead == [(r, 0, s) for s in (None, made) for r in tried[s is not None]]
    assert found == {"real": Row(tried[False][2]), "both": Row(tried[True][1], made)}
    assert tried[False] == tried[True]  # the same draws for every row
    assert {(r.select, r.epochs) for r in tried[True]} == {("best_average_val", 1)}
    assert all(1e-4 <= r.rate <= 1e-2 and 8 <= r.batch <= 16 for r in tried[True])
    assert len({r.rate for r in tried[True]}) == 3


class Undecided(Classifier):
    def __init__(self):
        super().__init__(torch.nn.Identity())
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return torch.zeros(len(x), 2), x.flatten(1)


def test_entropy_of_a_set_is_the_guides():
    exp = replace(experiment(), generator=no_generator(device=torch.device("cpu")))
    exp.__dict__["guide"] = Undecided()
    made = SyntheticSet(pd.DataFrame({"label": [0, 1]}), torch.zeros(2, 8, 8, 3, dtype=torch.uint8), "")
    assert study.entropy_of(exp, made) == pytest.approx(np.log(2))


def test_the_judge_reads_the_mini_worlds_own_images():
    asked = Groups(n_max=3, n_min=1, empty=1, held_out=6, classes=4, modes=(0.5, 0.5))
    of, scales = mini.nicopp(asked), dict.fromkeys(("entropy", "loss", "hardness", "combined"), 0.1)
    sampling = Sampling(
        generator=str(FOLDER), n_steps=2, every=1, through_network=False, cfg=3, cfg_text=1, noise_level=0,
        dropout=0.5, scales=scales, fill_to=None,
    )  # fmt: skip
    rows = of.manifest.rows("test")
    out = study.contents_of(experiment(of, sampling=sampling), SyntheticSet(rows, of.images(rows), ""))
    assert out["recognised"] > 70
    assert out["context_right"] > 70
    truth = of.factors(rows)
    assert out["photographs"] == pytest.approx(100 * (truth["style"] == "photo").mean(), abs=10)
    assert out["rare_share"] == pytest.approx(100 * (truth["mode"] > 0).mean(), abs=15)

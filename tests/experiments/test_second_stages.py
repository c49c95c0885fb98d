import pickle

import cloudpickle
import pytest
import torch
from tiny_bench import bench, no_generator

from fgsynth.experiments import second_stages
from fgsynth.experiments.experiment import Experiment
from fgsynth.models.networks import create, last_layer
from fgsynth.train.recipe import Recipe
from fgsynth.train.second_stage import crt

RECIPE = Recipe(network="thin", epochs=9, updates_per_epoch=2, batch=8, select="best_average_val")
LONG = bench({"train": (9, 3), "val": (2, 2)}, ("dim",))


def experiment():
    return Experiment(LONG, no_generator(), None, RECIPE, None)


def test_stages_train_by_the_recipe_for_their_own_epochs_on_the_images_they_are_for():
    asked = []

    def method(network, real, recipe, seed, *, workers):
        asked.append((network, real, recipe.epochs, recipe.batch, recipe.select, seed, workers))
        return "trained"

    stage = second_stages.retrained(experiment(), 2, method)
    assert stage("real", "made", "network", 7) == "trained"
    assert asked == [("network", "real", 2, 8, "last", 7, 0)]


def test_balanced_meta_softmax_is_the_meta_samplers_network(monkeypatch):
    asked = []

    def meta_sampler(network, real, made, recipe, seed, *, workers):
        asked.append((network, real, made, recipe.epochs, seed))
        return "trained", "rates"

    monkeypatch.setattr(crt, "meta_sampler", meta_sampler)
    stage = second_stages.balanced_meta_softmax(experiment(), 2)
    assert stage("real", "made", "network", 7) == "trained"
    assert asked == [("network", "real", "made", 2, 7)]


def name_of_last(network):
    return next(name for name, module in network.named_modules() if module is last_layer(network))


@pytest.mark.parametrize(
    "stage",
    [
        second_stages.retrained(experiment(), 1),
        second_stages.balanced_meta_softmax(experiment(), 1),
        second_stages.normalised(experiment()),
        second_stages.refitted(experiment()),
    ],
    ids=["cRT", "BALMS", "tau", "DFR"],
)
def test_stages_can_be_sent_hold_no_experiment_and_change_the_last_layer_alone(stage):
    sent = cloudpickle.dumps(stage)
    assert b"experiments.experiment" not in sent
    exp = experiment()
    network = create("thin", 2).eval()
    new = pickle.loads(sent)(exp.real, exp.trainings.images("val"), network, 0)
    before, after = network.state_dict(), new.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed
    assert {name.rsplit(".", 1)[0] for name in changed} == {name_of_last(network)}

import json
import math
import pickle
from dataclasses import fields, replace

import pytest
import torch

from fgsynth.data.sources import Images
from fgsynth.models.networks import Classifier
from fgsynth.train.objective import Drawing
from fgsynth.train.objectives.branches import CMO
from fgsynth.train.objectives.registry import OBJECTIVES, of_json, to_json
from fgsynth.train.recipe import Compute, Recipe
from fgsynth.train.run_folder import load
from fgsynth.train.train import predict, train
from fgsynth.utils.errors import UserError

RECIPE = Recipe(network="thin", epochs=1, updates_per_epoch=3, batch=8, augment=())
X = torch.randint(0, 256, (24, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
# VL-LTR needs a CLIP and has tests of its own.
NAMES = sorted(set(OBJECTIVES) - {"VL-LTR"})
REAL = Images(X, torch.tensor([0] * 14 + [1] * 7 + [2] * 3), torch.arange(24) % 2)


@pytest.mark.parametrize("name", NAMES)
def test_a_method_is_trained_stored_and_loaded_as_the_same(name, tmp_path):
    recipe = replace(RECIPE, objective=OBJECTIVES[name]())
    trained = train(REAL, None, 3, recipe, 0, folder=tmp_path, device="cpu")
    assert isinstance(trained.network, Classifier)
    again = load(tmp_path)
    logits = predict(again.network, REAL)
    assert logits.shape == (24, 3)
    assert torch.isfinite(logits).all()
    assert torch.equal(logits, predict(trained.network, REAL))
    assert json.loads((tmp_path / "recipe.json").read_text())["recipe"]["objective"]["name"] == name
    assert train(REAL, None, 3, recipe, 0, folder=tmp_path, device="cpu").history.equals(again.history)


@pytest.mark.parametrize("name", NAMES)
def test_a_method_trains_in_micro_batches_of_both_kinds(name):
    recipe = replace(RECIPE, objective=OBJECTIVES[name](), updates_per_epoch=2)
    network = train(REAL, REAL, 3, recipe, 0, device="cpu", compute=Compute(accumulate=2)).network
    assert torch.isfinite(predict(network, REAL)).all()


@pytest.mark.parametrize("name", NAMES)
def test_json_and_other_processes_get_the_same_method(name):
    method = OBJECTIVES[name]()
    first = next(iter(fields(method)), None)
    if first is not None and isinstance(first.default, float):
        method = replace(method, **{first.name: 0.25})
    assert of_json(json.loads(json.dumps(to_json(method)))) == method
    assert pickle.loads(pickle.dumps(method)) == method
    assert hash(method) == hash(of_json(to_json(method)))


def test_a_recipe_without_one_has_none():
    assert to_json(None) is of_json(None) is None


def test_another_method_is_another_training(tmp_path):
    train(REAL, None, 3, replace(RECIPE, objective=CMO()), 0, folder=tmp_path, device="cpu")
    for other in (CMO(alpha=0.5), None):
        with pytest.raises(UserError, match=r"of another training \(recipe differs\)"):
            train(REAL, None, 3, replace(RECIPE, objective=other), 0, folder=tmp_path, device="cpu")


NUMBERS = [(name, field.name) for name in NAMES for field in fields(OBJECTIVES[name])]


@pytest.mark.parametrize(("name", "key"), NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1, "1", True])
def test_no_method_takes_what_is_no_number_of_its_range(name, key, value):
    kind = OBJECTIVES[name]
    said = f"^{kind.__name__}: key '{key}' is {value!r}: input should be [^.]*[.]$"
    with pytest.raises(UserError, match=said):
        kind(**{key: value})


def test_unknown_methods_and_settings_are_refused():
    with pytest.raises(UserError, match="Unknown objective 'SGD': choose CMO or ERM or"):
        of_json({"name": "SGD"})
    with pytest.raises(UserError, match=r"objective 'CMO' does not know these settings: .*'colour'"):
        of_json({"name": "CMO", "colour": 1})
    with pytest.raises(UserError, match="Drawing: key 'kind' is 'often': input should be 'passes'"):
        Drawing("often")

"""Whatever is wrong with an argument of a public function is one sentence that names it."""

from functools import partial
from inspect import unwrap
from math import inf, nan

import pytest
import torch

from fgsynth.config.checked import Checked, checked
from fgsynth.data.sources import Images
from fgsynth.models.networks import small
from fgsynth.train.recipe import Recipe, random_search
from fgsynth.train.second_stage.crt import crt, meta_sampler
from fgsynth.train.second_stage.dfr import dfr
from fgsynth.train.second_stage.rescale import best_tau, lws, mislas, tau_normalised
from fgsynth.train.train import outputs, predict, train
from fgsynth.utils.errors import UserError

X, LABEL = torch.zeros(6, 32, 32, 3, dtype=torch.uint8), torch.arange(6) % 3
REAL, NETWORK, RECIPE = Images(X, LABEL), small(3).eval(), Recipe(epochs=1, updates_per_epoch=1, batch=4)
NOTHING, HOLE = Images(X[:0], LABEL[:0]), Images(X, LABEL % 2)
FUNCTIONS = {
    "train": partial(train, real=REAL, synthetic=None, n_classes=3, recipe=RECIPE, seed=0),
    "outputs": partial(outputs, network=NETWORK, images=REAL),
    "crt": partial(crt, network=NETWORK, real=REAL, recipe=RECIPE, seed=0),
    "meta_sampler": partial(meta_sampler, network=NETWORK, real=REAL, synthetic=None, recipe=RECIPE, seed=0),
    "lws": partial(lws, network=NETWORK, real=REAL, recipe=RECIPE, seed=0),
    "mislas": partial(mislas, network=NETWORK, real=REAL, recipe=RECIPE, seed=0),
    "dfr": partial(dfr, network=NETWORK, held_out=REAL, group=LABEL, seed=0),
    "best_tau": partial(best_tau, network=NETWORK, val=REAL),
    "tau_normalised": partial(tau_normalised, network=NETWORK, tau=1.0),
    "random_search": partial(random_search, draws=3, seed=0),
}
WRONG = {
    **dict.fromkeys(("real", "images", "held_out", "val", "synthetic"), ("photos", LABEL)),
    "network": ("small", None),
    "recipe": (None, {"epochs": 1}),
    "n_classes": (0, 3.0, nan, "3", True),
    "seed": (nan, "0", None, 0.5),
    "folder": ("runs",),
    "device": ("gpu", 0.5),
    **dict.fromkeys(("workers", "processes", "side", "draws"), (-1, nan, "2", True)),
    "compute": ("bf16",),
    "group": ([0, 1],),
    "rows": ([0],),
    "tau": (nan, inf, -1.0, "1"),
    **dict.fromkeys(("rate", "batch"), ((0,), (nan, 1.0), "ab")),
}
CASES = [
    (name, key, value)
    for name, call in FUNCTIONS.items()
    for key in unwrap(call.func).__annotations__
    for value in WRONG.get(key, ())
]


@pytest.mark.parametrize(("name", "key", "value"), CASES)
def test_a_wrong_argument_is_named(name, key, value):
    with pytest.raises(UserError, match=rf"^{name}: key '{key}(\.\d)?' is .*: .+\.$"):
        FUNCTIONS[name](**{key: value})


def test_every_argument_is_among_the_wrong_ones():
    known = {key for call in FUNCTIONS.values() for key in unwrap(call.func).__annotations__}
    assert known - {"return"} == set(WRONG)


SETS = ("real", "images", "held_out", "val")
IMAGES = {name: key for name, call in FUNCTIONS.items() for key in SETS if key in call.keywords}


@pytest.mark.parametrize(("name", "key"), IMAGES.items())
def test_no_images_are_a_sentence(name, key):
    with pytest.raises(UserError, match="no images"):
        FUNCTIONS[name](**{key: NOTHING})


@pytest.mark.parametrize("name", ["train", "crt", "meta_sampler", "lws", "mislas", "dfr"])
def test_a_class_that_is_missing_or_too_many_is_named(name):
    key = IMAGES[name]
    with pytest.raises(UserError, match=r"^Class 2 has no "):
        FUNCTIONS[name](**{key: HOLE})
    with pytest.raises(UserError, match="set has label 5, but labels of 3 classes go from 0 to 2"):
        FUNCTIONS[name](**{key: Images(X, LABEL + 3)})


def test_a_gpu_that_is_not_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="There is no GPU for device 'cuda:1' here: choose 'cpu'"):
        FUNCTIONS["train"](device="cuda:1")


def test_what_fills_the_screen_is_told_by_its_type_and_good_values_stay_the_same_objects():
    with pytest.raises(UserError, match=r"^crt: key 'recipe' is a Tensor: input .* an instance of Recipe\.$"):
        FUNCTIONS["crt"](recipe=X)

    @checked
    def identity(network: torch.nn.Module, recipe: Recipe, *, x: torch.Tensor | None = None) -> object:
        return network, recipe, x

    same = zip(identity(NETWORK, recipe=RECIPE, x=X), (NETWORK, RECIPE, X), strict=True)
    assert all(a is b for a, b in same)
    assert identity.__name__ == "identity"
    assert issubclass(Recipe, Checked)
    assert predict(NETWORK, REAL, rows=torch.tensor([1, 0])).shape == (2, 3)

import pytest

from fgsynth.config.schema import Groups, LongTail
from fgsynth.data import mini
from fgsynth.data.registry import WORLDS, draw
from fgsynth.utils.errors import UserError

TAIL = {"n_max": 101, "n_min": 2, "n_val": 1, "n_test": 1, "modes": [0.5, 0.5]}
GROUPS = {"n_max": 3, "n_min": 1, "empty": 1, "held_out": 3, "classes": 2, "modes": [1.0]}


@pytest.mark.parametrize(
    ("name", "world", "same"),
    [
        ("imagenet_lt", {**TAIL, "strata": [1, 1, 22]}, lambda w: mini.imagenet_lt(LongTail(**w))),
        ("places_lt", {**TAIL, "strata": [1, 1, 10]}, lambda w: mini.places_lt(LongTail(**w))),
        ("nicopp", GROUPS, lambda w: mini.nicopp(Groups(**w))),
    ],
)
def test_a_benchmark_by_name_is_drawn_as_by_its_function(name, world, same):
    drawn = draw(name, world)
    assert drawn.manifest.name == name
    assert drawn.manifest.digest == same(world).manifest.digest
    settings, _ = WORLDS[name]
    assert draw(name, settings.model_validate(world)).manifest.digest == drawn.manifest.digest


def test_a_benchmark_that_does_not_exist_is_one_sentence():
    with pytest.raises(UserError) as caught:
        draw("cifar", {})
    assert str(caught.value) == "No benchmark 'cifar': choose one of imagenet_lt, places_lt, nicopp."


def test_settings_of_another_kind_are_refused():
    with pytest.raises(UserError, match="world: key 'held_out' is missing"):
        draw("nicopp", {**TAIL, "strata": [1, 1, 22]})

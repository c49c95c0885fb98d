from typing import get_args

import pytest

from fgsynth.config import names
from fgsynth.config.names import FG_ENTROPY, check, parse, variant
from fgsynth.utils.errors import UserError


def test_every_constant_is_a_name_of_its_own():
    constants = {key: value for key, value in vars(names).items() if key.isupper() and isinstance(value, str)}
    assert len(set(constants.values())) == len(constants) > 50
    assert set(constants.values()) <= set(names.METHODS)
    assert all(kind in get_args(names.Kind) and source for kind, source in names.METHODS.values())


@pytest.mark.parametrize("setting", names.SETTINGS)
@pytest.mark.parametrize("value", [0, 0.03, 0.125, 1, 10, 2e-5])
@pytest.mark.parametrize("name", [FG_ENTROPY, names.UNGUIDED, names.UNGUIDED_MORE])
def test_a_variant_is_parsed_again(name, setting, value):
    assert parse(variant(name, setting, value)) == (name, setting, value)
    check([variant(name, setting, value)], "here")


def test_equal_values_have_one_name():
    assert variant(FG_ENTROPY, "w", 0) == variant(FG_ENTROPY, "w", 0.0) == "LDM-FG (Entropy), w 0"


def test_no_name_is_a_variant_of_another():
    assert all(parse(name)[:2] == (name, None) for name in names.METHODS)


@pytest.mark.parametrize("name", ["LDM FG (Entropy)", "LDM-FG (Entropy), w high", "LDM-FG (Entropy), w 0.1 "])
def test_an_unknown_name_is_told_with_its_source_and_the_nearest(name):
    with pytest.raises(
        UserError, match=r"^here: there is no method '.*'; the nearest name is 'LDM-FG \(Entropy\)'"
    ):
        check([FG_ENTROPY, name], "here")


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("imagenet_lt", ("imagenet_lt", None, None)),
        ("nicopp_2", ("nicopp", None, 2)),
        ("baselines", ("baselines", None, None)),
        ("baselines_imagenet_lt_0", ("baselines", "imagenet_lt", 0)),
        ("baselines_nicopp", ("baselines", "nicopp", None)),
        ("toy_2d", ("toy_2d", None, None)),
        ("feedback_map_1", ("feedback_map", None, 1)),
        ("", ("", None, None)),
    ],
)
def test_a_target_is_a_stage_one_of_its_benchmarks_and_a_draw(name, target):
    assert names.target(name) == target

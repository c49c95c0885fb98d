import inspect
import math
import pickle
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fgsynth
from fgsynth.config.checked import Checked
from fgsynth.config.schema import Count, Inversion, Share
from fgsynth.cost import estimate
from fgsynth.generate.engines import Engine, fill
from fgsynth.generate.resize import at_resolution
from fgsynth.generate.store import Store
from fgsynth.utils.errors import UserError

DOORS = (
    fgsynth.Dropout, fgsynth.Guidance, fgsynth.Method, fgsynth.Feedback, fgsynth.Plan, fgsynth.synthesise,
    fgsynth.Generator.load, fgsynth.Generator.predict, fgsynth.criteria.Hardness.fit,
    Engine, Store, fill, at_resolution, estimate.run,
)  # fmt: skip


def of_kind(door, kinds):
    """Arguments whose values are of these types, None aside, by name."""
    hints = typing.get_type_hints(door.__init__ if isinstance(door, type) else door)
    hints.pop("return", None)
    return [
        name
        for name, hint in hints.items()
        if any(k in (hint, *typing.get_args(hint)) for k in kinds) and typing.get_origin(hint) is not Sequence
    ]


def call(door, **given):
    """With something for every argument that it needs."""
    needed = {
        name: object()
        for name, parameter in inspect.signature(door).parameters.items()
        if parameter.default is inspect.Parameter.empty
    }
    return door(**{**needed, **given})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "many", True, [1]])
@pytest.mark.parametrize(
    ("door", "name"), [(door, name) for door in DOORS for name in of_kind(door, {int, float})]
)
def test_a_number_is_a_finite_number(door, name, value):
    with pytest.raises(UserError, match=re.escape(f"key '{name}' is {value!r}: input should be ")):
        call(door, **{name: value})


@pytest.mark.parametrize(("door", "name"), [(door, name) for door in DOORS for name in of_kind(door, {bool})])
def test_a_switch_is_no_number(door, name):
    with pytest.raises(UserError, match=f"key '{name}' is 1: input should be a valid boolean"):
        call(door, **{name: 1})


@pytest.mark.parametrize(
    ("door", "given", "sentence"),
    [
        (fgsynth.Dropout, {"p": 1.5}, "Dropout: key 'p' is 1.5"),
        (fgsynth.Method, {"dropout": -0.1}, "Method: key 'dropout' is -0.1"),
        (fgsynth.Method, {"criteria": "entropy"}, "'criteria' is 'entropy': input should be a valid tuple"),
        (fgsynth.Method, {"criteria": ("entropie",)}, "Unknown criterion 'entropie': choose from loss"),
        (fgsynth.Method, {"scale": math.nan, "criteria": ("loss",)}, "'scale' is nan"),
        (fgsynth.Method, {"inversion": 3}, "'inversion' is 3: input should be"),
        (fgsynth.Method, {"image": False, "dropout": 0.5}, "dropout has no effect without an image"),
        (fgsynth.Method, {"scale": 0.1}, "scale has no effect without criteria"),
        (fgsynth.Feedback, dict(classifier=print, criteria={}, n_classes=3), "Feedback needs a criterion"),
        (fgsynth.Generator.load, {"model": 3}, "key 'model' is 3"),
        (fgsynth.Generator.load, {"model": "m", "dtype": "float16"}, "'dtype' is 'float16'"),
        (fgsynth.Generator.load, {"model": "m", "dtype": torch.int8}, "dtype is torch.int8"),
        (fgsynth.synthesise, {"cfg": 3.0, "batch": 0}, "'batch' is 0"),
        (estimate.run, {"stage": "nicopp", "half": True}, "half has no effect"),
        (estimate.run, {"stage": "nicopp", "price": -3.0}, "'price' is -3.0"),
    ],
)  # fmt: skip
def test_what_is_out_of_range_or_without_effect_is_said(door, given, sentence):
    with pytest.raises(UserError, match=sentence.replace("{", r"\{")) as caught:
        call(door, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"label": torch.zeros(2)}, r"labels are torch\.float32: whole numbers"),
        ({"label": [0, 1]}, "'label' is .*: input should be an instance of Tensor"),
    ],
)
def test_a_plan_of_images_is_checked_whole(more, sentence):
    given = dict(prompts="ab", image=torch.zeros(2, 4), label=torch.tensor([0, 1]), seeds=[0, 1])
    fgsynth.Plan(**given)
    with pytest.raises(UserError, match=sentence):
        fgsynth.Plan(**{**given, **more})


@dataclass(frozen=True)
class Example(Checked):
    share: Share
    count: Count | None = None
    where: str | Path = "here"
    inversion: Inversion | None = None


def test_what_is_right_passes_as_it_is():
    for share in (1, 0.5, np.float64(0.5), np.float32(0.25), np.int64(1)):
        assert Example(share).share == share
    kept = Example(0.5, np.int64(3), Path("there"), Inversion())
    assert pickle.loads(pickle.dumps(kept)) == kept
    assert replace(kept, count=None).count is None
    with pytest.raises(UserError, match=r"Example: key 'share' is 2.0: .* Example: key 'count' is 0"):
        Example(2.0, 0)
    with pytest.raises(TypeError, match="shear"):
        Example(0.5, shear=0.5)

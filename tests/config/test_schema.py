from dataclasses import fields

import pytest
from pydantic import ValidationError

from fgsynth.config.schema import Classification, Groups, LongTail, Sampling, validated
from fgsynth.config.tables import ImagenetLt, Nicopp
from fgsynth.data.augment import NAMES
from fgsynth.train.recipe import Recipe
from fgsynth.utils.errors import UserError

TAIL = {"n_max": 200, "n_min": 4, "strata": [8, 9, 7], "n_val": 5, "n_test": 5, "modes": [0.9, 0.1]}
GROUPS = {"n_max": 9, "n_min": 1, "empty": 2, "held_out": 9, "classes": 4, "modes": [1.0]}
SAMPLING = {
    "generator": "somewhere", "n_steps": 12, "every": 2, "through_network": False, "cfg": 3, "cfg_text": 1.5,
    "noise_level": 0, "dropout": 0.5, "fill_to": None,
    "scales": {"entropy": 0.03, "loss": 0.03, "hardness": 0.03, "combined": 0.03},
}  # fmt: skip
TRAINING = {
    "network": "small", "pretrained": False, "optimiser": "adamw", "rate": 4e-3, "weight_decay": 0.05,
    "epochs": 4, "updates_per_epoch": None, "batch": 64, "balanced": 1.0, "counts": "real",
    "augment": ["crop", "flip"],
}  # fmt: skip
COMMON = {"work": "data/work", "split": "test", "seeds": 2, "sampling": SAMPLING, "training": TRAINING}
IMAGENET_LT = {**COMMON, "world": TAIL, "amounts": [0.0, 1.0], "weights": [1.0]}
NICOPP = {
    **COMMON, "world": GROUPS, "draws": 2, "search": {"rate": [-4, -2], "batch": [6, 6.75]},
    "coefficients": [0.03],
}  # fmt: skip
MODELS = [(LongTail, TAIL), (Groups, GROUPS), (Sampling, SAMPLING), (Classification, TRAINING),
          (ImagenetLt, IMAGENET_LT), (Nicopp, NICOPP)]  # fmt: skip


@pytest.mark.parametrize(("model", "values"), MODELS, ids=lambda v: getattr(v, "__name__", ""))
def test_what_a_yaml_file_holds_is_taken_and_given_back(model, values):
    made = model.model_validate(values)
    assert model.model_validate(made.model_dump(mode="json")) == made
    assert model.model_validate(made.model_dump()) == made
    with pytest.raises(ValidationError, match="frozen"):
        setattr(made, next(iter(values)), 1)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        model.model_validate({**values, "spelt_wrongly": 1})
    with pytest.raises(ValidationError, match="Field required"):
        model.model_validate(dict(list(values.items())[1:]))


def test_lists_become_tuples():
    assert LongTail.model_validate(TAIL).strata == (8, 9, 7)
    assert Groups.model_validate(GROUPS).modes == (1.0,)


@pytest.mark.parametrize(
    ("model", "values", "change"),
    [
        (LongTail, TAIL, {"n_max": 100}),  # would be no class of many
        (LongTail, TAIL, {"n_min": 20}),  # would be none of few
        (LongTail, TAIL, {"n_min": 1}),  # hardness needs two
        (LongTail, TAIL, {"strata": [8, 9]}),
        (LongTail, TAIL, {"strata": [8, 9, 0]}),
        (LongTail, TAIL, {"modes": [0.2] * 5}),
        (LongTail, TAIL, {"modes": []}),
        (LongTail, TAIL, {"n_val": "5"}),
        (Groups, GROUPS, {"held_out": 2}),
        (Groups, GROUPS, {"classes": 25}),
        (Groups, GROUPS, {"empty": -1}),
        (Sampling, SAMPLING, {"n_steps": 0}),
        (Sampling, SAMPLING, {"cfg": 0.5}),
        (Sampling, SAMPLING, {"dropout": 1.5}),
        (Sampling, SAMPLING, {"dropout": float("nan")}),
        (Sampling, SAMPLING, {"through_network": "no"}),
        (Sampling, SAMPLING, {"fill_to": 0}),
        (Sampling, SAMPLING, {"scales": {"entropy": 0.03, "loss": 0.03, "hardness": 0.03}}),
        (Sampling, SAMPLING, {"scales": {**SAMPLING["scales"], "combined": 0.0}}),
        (Sampling, SAMPLING, {"scales": {**SAMPLING["scales"], "beauty": 0.1}}),
        (Classification, TRAINING, {"optimiser": "adam"}),
        (Classification, TRAINING, {"rate": float("inf")}),
        (Classification, TRAINING, {"augment": ["crop", "mixup"]}),
        (ImagenetLt, IMAGENET_LT, {"amounts": [0.0, 2.0]}),
        (ImagenetLt, IMAGENET_LT, {"amounts": [1.0]}),
        (ImagenetLt, IMAGENET_LT, {"weights": [0.5]}),
        (ImagenetLt, IMAGENET_LT, {"split": "val"}),
        (ImagenetLt, IMAGENET_LT, {"seeds": 1}),
        (Nicopp, NICOPP, {"search": {"rate": [-4], "batch": [6, 6.75]}}),
        (Nicopp, NICOPP, {"coefficients": [0.0]}),
    ],
)
def test_a_wrong_value_is_refused_at_its_key(model, values, change):
    with pytest.raises(ValidationError) as caught:
        model.model_validate({**values, **change})
    (key,) = change
    named = {error["loc"][0] for error in caught.value.errors() if error["loc"]}
    assert named <= {key}
    assert named or key in str(caught.value)


def test_training_settings_are_those_of_a_recipe():
    machine = {"workers", "precision", "accumulate"}
    of_files = {"side", *machine}  # which images in memory do without
    assert set(TRAINING) | of_files == set(Classification.model_fields)
    assert set(Classification.model_fields) - machine < {f.name for f in fields(Recipe)}
    asked = Classification.model_validate({**TRAINING, "augment": list(NAMES)})
    with pytest.raises(ValidationError, match="mixup"):
        Classification.model_validate({**TRAINING, "augment": ["mixup"]})
    assert Recipe.of(asked).augment == asked.augment
    assert Recipe.of(asked.model_copy(update={"side": 224, "workers": 3})).side == 224


def test_a_mistake_between_keys_is_told_without_the_values():
    with pytest.raises(UserError) as caught:
        validated(ImagenetLt, {**IMAGENET_LT, "weights": [0.5]}, "some.yaml")
    assert str(caught.value) == "some.yaml: amounts must contain 0.0 and 1.0, weights 1.0."

from math import inf, nan

import pytest
import torch
from torch import nn

from fgsynth.train.recipe import Compute, Recipe
from fgsynth.utils.errors import UserError


def test_an_epoch_is_a_pass_over_the_real_images():
    recipe = Recipe(batch=8)
    assert recipe.updates(36, with_synthetic=True) == 9
    assert recipe.updates(36, with_synthetic=False) == 5
    with pytest.raises(UserError, match="leaves 8 real and 0 synthetic"):
        Recipe(batch=8, real_share=0.99).real_per_batch(True)


NUMBER, WHOLE = "should be a valid number", "should be a valid integer"
BAD = {
    ("network", 3): "should be a valid string",
    ("pretrained", "yes"): "should be a valid boolean",
    ("optimiser", "adam"): "should be 'sgd' or 'adamw'",
    ("counts", "all"): r"should be 'real', 'real\+synthetic' or 'batch'",
    ("select", "best"): "should be 'last' or 'best_average_val'",
    ("augment.0", "cut"): "should be 'crop', 'flip'",
    ("objective", "CMO"): "should be an instance of Objective",
    ("batch", 1): "greater than or equal to 2",
    ("side", 0): "greater than or equal to 1",
    ("epochs", 1.5): WHOLE,
    ("updates_per_epoch", True): WHOLE,
    ("rate", 0): "greater than 0",
    ("warmup", 1.0): "less than 1",
    ("real_share", -0.1): "greater than or equal to 0",
    ("balanced", 1.5): "less than or equal to 1",
    **{(key, 0): "greater than or equal to 1" for key in ("epochs", "updates_per_epoch")},
    **{(key, "x"): NUMBER for key in ("rate", "weight_decay", "warmup", "real_share", "balanced")},
    **{(key, nan): "" for key in ("rate", "weight_decay", "warmup", "real_share", "balanced")},
    **{(key, inf): "" for key in ("rate", "weight_decay", "warmup", "real_share", "balanced")},
    **{(key, nan): WHOLE for key in ("epochs", "batch", "side")},
}


@pytest.mark.parametrize(("key", "value"), BAD)
def test_a_recipe_that_cannot_be_is_refused(key, value):
    name = key.split(".")[0]
    with pytest.raises(UserError, match=f"^Recipe: key '{key}' is .*: input .*{BAD[key, value]}.*[.]$"):
        Recipe(**{name: (value,) if name != key else value})


def test_all_that_is_wrong_is_told_at_once_and_lists_are_taken():
    with pytest.raises(UserError, match=r"key 'epochs' is 0: .*[.] Recipe: key 'balanced' is 2:"):
        Recipe(epochs=0, balanced=2)
    assert Recipe(augment=["flip"]) == Recipe(augment=("flip",))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_rate_rises_to_its_peak_and_falls_to_zero(kind):
    recipe = Recipe(optimiser=kind, rate=0.1, warmup=0.2)
    optimiser = recipe.build_optimiser([nn.Parameter(torch.zeros(1))])
    schedule = recipe.build_schedule(optimiser, 20)
    rates = []
    for i in range(20):
        schedule.step_update(i)
        rates.append(optimiser.param_groups[0]["lr"])
    assert rates[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[12] == pytest.approx(0.05)
    assert 0 < rates[-1] < 0.002


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("precision", "fp8", "should be 'no', 'fp16' or 'bf16'"),
        ("accumulate", 0, "greater than or equal to 1"),
        ("checkpoint", -1, "greater than or equal to 0"),
        ("checkpoint", nan, "finite number"),
    ],
)
def test_a_computation_that_cannot_be_is_refused(key, value, message):
    with pytest.raises(UserError, match=f"^Compute: key '{key}' is {value!r}: input .*{message}[.]$"):
        Compute(**{key: value})


def test_the_precision_follows_the_device_unless_it_is_given():
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert (Compute().on(gpu), Compute().on(cpu)) == ("bf16", "no")
    assert (Compute("fp16").on(gpu), Compute("no").on(gpu)) == ("fp16", "no")

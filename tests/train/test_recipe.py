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


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optimiser", "adam", "unknown optimiser 'adam': choose 'sgd' or 'adamw'"),
        ("counts", "all", "unknown counts 'all'"),
        ("select", "best", "unknown select 'best'"),
        ("augment", ("cut",), "Unknown augmentation 'cut'"),
        ("batch", 1, "batch is 1, must be at least 2"),
        ("epochs", 0, "epochs is 0"),
        ("updates_per_epoch", 0, "updates_per_epoch is 0"),
        ("rate", float("nan"), "rate is nan, must be positive"),
        ("warmup", 1.0, "warmup is 1.0"),
        ("real_share", 0.0, "real_share is 0.0, must be above 0"),
        ("balanced", 1.5, "balanced is 1.5, must be from 0 to 1"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(key, value, message):
    with pytest.raises(UserError, match=message):
        Recipe(**{key: value})


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
        ("precision", "fp8", "Compute: unknown precision 'fp8': choose 'no' or 'fp16' or 'bf16'"),
        ("accumulate", 0, "Compute: accumulate is 0, must be at least 1"),
        ("checkpoint", -1, "Compute: checkpoint is -1, must be at least 0"),
    ],
)
def test_a_way_to_compute_that_cannot_be_is_refused(key, value, message):
    with pytest.raises(UserError, match=message):
        Compute(**{key: value})


def test_the_precision_follows_the_device_unless_it_is_given():
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert (Compute().on(gpu), Compute().on(cpu)) == ("bf16", "no")
    assert (Compute("fp16").on(gpu), Compute("no").on(gpu)) == ("fp16", "no")

import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler

from fgsynth.guidance.schedule import Schedule, model_function, x0_from_eps
from fgsynth.utils.errors import UserError


def test_v_and_epsilon_networks_of_the_same_model_agree(schedule, network):
    z = torch.randn(5, 3, dtype=torch.double)

    def v_network(z, t):
        abar, eps = schedule.abar(t).double(), network(z, t)
        return (eps - (1 - abar).sqrt() * z) / abar.sqrt()

    for t in (1, 500, 991):
        by_eps = model_function(network, schedule, "epsilon")(z, t)
        by_v = model_function(v_network, schedule, "v_prediction")(z, t)
        for a, b in zip(by_eps, by_v, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_prediction_puts_the_latent_back_together(schedule, network):
    z, t = torch.randn(5, 3, dtype=torch.double), 400
    x0, eps = model_function(network, schedule, "v_prediction")(z, t)
    abar = schedule.abar(t).double()
    torch.testing.assert_close(abar.sqrt() * x0 + (1 - abar).sqrt() * eps, z, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x0_from_eps(z, eps, abar), x0, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("scheduler", "word"),
    [
        (PNDMScheduler(), "not a DDIM scheduler"),
        (DDIMScheduler(clip_sample=True), "clips"),
        (DDIMScheduler(clip_sample=False, rescale_betas_zero_snr=True), "zero signal"),
    ],
)
def test_unfit_schedulers_are_refused(scheduler, word):
    with pytest.raises(UserError, match=word):
        Schedule.from_scheduler(scheduler, 10)


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_number_of_steps(steps):
    with pytest.raises(UserError, match="choose between 1 and 1000"):
        Schedule.from_scheduler(DDIMScheduler(clip_sample=False), steps)


def test_unknown_prediction_type(schedule, network):
    with pytest.raises(UserError, match="'sample' is not supported"):
        model_function(network, schedule, "sample")


def test_steps_beyond_the_schedule_are_refused():
    with pytest.raises(UserError, match="1000 sampling steps from an offset of 1 leave the schedule's 1000"):
        Schedule.from_scheduler(DDIMScheduler(clip_sample=False, steps_offset=1), 1000)

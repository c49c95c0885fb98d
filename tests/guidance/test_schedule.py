import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler

from fgsynth.guidance.schedule import Schedule, model_function, x0_from_eps
from fgsynth.utils.errors import UserError


def test_v_and_epsilon_networks_of_the_same_model_agree(schedule, network):
    z = torch.randn(5, 3, dtype=torch.double)

    def v_network(z, t):
        return (network(z, t) - schedule.noise(t) * z) / schedule.signal(t)

    for t in (1, 500, 991):
        by_eps = model_function(network, schedule, "epsilon")(z, t)
        by_v = model_function(v_network, schedule, "v_prediction")(z, t)
        for a, b in zip(by_eps, by_v, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_prediction_puts_the_latent_back_together(schedule, network):
    z, t = torch.randn(5, 3, dtype=torch.double), 400
    x0, eps = model_function(network, schedule, "v_prediction")(z, t)
    signal, noise = schedule.signal(t), schedule.noise(t)
    torch.testing.assert_close(signal * x0 + noise * eps, z, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x0_from_eps(z, eps, signal, noise), x0, rtol=1e-5, atol=1e-5)


def test_signal_and_noise_are_those_of_diffusers_and_preserve_variance():
    scheduler = DDIMScheduler(clip_sample=False)
    schedule = Schedule.from_scheduler(scheduler, 10)
    x0, eps = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    for t in (0, 400, 999):
        noised = scheduler.add_noise(x0, eps, torch.tensor(t))
        torch.testing.assert_close(schedule.signal(t) * x0 + schedule.noise(t) * eps, noised)
        exact = [part(t, dtype=torch.float64) for part in (schedule.signal, schedule.noise)]
        assert float(sum(x**2 for x in exact)) == pytest.approx(1, abs=1e-15)
    assert (float(schedule.signal(-1)), float(schedule.noise(-1))) == (1, 0)


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

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from fgsynth.guidance.schedule import FLOW, KINDS, Flow, Schedule, model_function, without_memory, x0_from_eps
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
    with pytest.raises(UserError, match="'noise' is not supported: use one of 'epsilon', 'v_prediction'"):
        model_function(network, schedule, "noise")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_prediction_has_its_closed_form(schedule, kind):
    given = Flow(((700.0, 0.0),)) if kind == FLOW else schedule
    x0, eps = torch.randn(2, 5, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    signal, noise = (part(700, dtype=torch.double) for part in (given.signal, given.noise))
    truth = {"epsilon": eps, "sample": x0, "v_prediction": signal * eps - noise * x0, FLOW: eps - x0}
    z = signal * x0 + noise * eps
    found = model_function(lambda *_: truth[kind], given, kind)(z, 700)
    for a, b in zip(found, (x0, eps), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_pipelines_scheduler_is_replaced_by_one_without_memory():
    assert type(without_memory(PNDMScheduler())) is DDIMScheduler
    flow = without_memory(FlowMatchHeunDiscreteScheduler(shift=3.0))
    assert type(flow) is FlowMatchEulerDiscreteScheduler
    assert flow.config.shift == 3.0
    for other in (EDMEulerScheduler(), UniPCMultistepScheduler(use_flow_sigmas=True)):
        with pytest.raises(UserError, match="neither a diffusion by its betas nor a flow"):
            without_memory(other)


def test_a_flow_begins_without_signal_and_ends_without_noise():
    flow = Schedule.from_scheduler(FlowMatchEulerDiscreteScheduler(shift=3.0), 4)
    assert (float(flow.signal(flow.steps[0][0])), float(flow.noise(flow.steps[0][0]))) == (0, 1)
    assert (float(flow.signal(flow.steps[-1][1])), float(flow.noise(flow.steps[-1][1]))) == (1, 0)
    with pytest.raises(UserError, match="inverts its sigmas"):
        Schedule.from_scheduler(FlowMatchEulerDiscreteScheduler(invert_sigmas=True), 4)


def test_steps_beyond_the_schedule_are_refused():
    with pytest.raises(UserError, match="1000 sampling steps from an offset of 1 leave the schedule's 1000"):
        Schedule.from_scheduler(DDIMScheduler(clip_sample=False, steps_offset=1), 1000)

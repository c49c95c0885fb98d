from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from fgsynth.guidance.criteria import entropy
from fgsynth.guidance.feedback import Guidance, guide
from fgsynth.guidance.samplers import ddim
from fgsynth.guidance.schedule import FLOW, Flow, Schedule, model_function


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("to_one", [True, False])
def test_ddim_is_diffusers_own_loop(network, prediction_type, spacing, to_one):
    scheduler = DDIMScheduler(
        clip_sample=False, prediction_type=prediction_type, timestep_spacing=spacing, set_alpha_to_one=to_one,
        steps_offset=1 if spacing == "leading" else 0,
    )  # fmt: skip
    schedule = Schedule.from_scheduler(scheduler, 30)
    start = torch.randn(4, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    z = start
    for t in scheduler.timesteps:
        z = scheduler.step(network(z, int(t)), int(t), z, eta=0.0).prev_sample
    ours = ddim(model_function(network, schedule, prediction_type), start, schedule)
    torch.testing.assert_close(ours, z, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(ours, start, atol=0.1)


@pytest.mark.parametrize("n_steps", [1, 7, 28])
@pytest.mark.parametrize(
    ("settings", "given"),
    [({}, {}), ({"shift": 3.0}, {}), ({"use_dynamic_shifting": True}, {"tokens": 1024, "evenly": True})],
)
def test_ddim_on_a_flow_is_diffusers_own_euler(network, settings, given, n_steps):
    scheduler = FlowMatchEulerDiscreteScheduler(**settings)
    schedule = Schedule.from_scheduler(scheduler, n_steps, **given)
    start = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    if given:
        even = [1 - i / n_steps for i in range(n_steps)]
        # As FluxPipeline does: 0.5 at 256 tokens, 1.15 at 4,096.
        scheduler.set_timesteps(sigmas=even, mu=0.5 + (1.15 - 0.5) * (1024 - 256) / (4096 - 256))
    else:
        scheduler.set_timesteps(n_steps)
    assert [t for t, _ in schedule.steps] == pytest.approx(scheduler.timesteps.tolist())
    z = start
    for t in scheduler.timesteps:
        z = scheduler.step(network(z.double(), float(t)).float(), t, z).prev_sample
    ours = ddim(model_function(network, schedule, FLOW), start.double(), schedule)
    torch.testing.assert_close(ours.float(), z, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours.float(), start, atol=0.1)


def test_sampling_leaves_no_graph(schedule):
    weight = torch.ones(3, requires_grad=True)
    predict = model_function(lambda z, t: z * weight, schedule, "epsilon")
    assert not ddim(predict, torch.randn(2, 3), schedule).requires_grad


def test_a_guided_shift_moves_the_next_latent_by_the_signal(schedule, network):
    predict = model_function(network, schedule, "epsilon")
    start = torch.randn(4, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    first, seen = schedule.steps[0][0], []

    def watching(push):
        seen.clear()

        def shifted(z, t):
            seen.append(z)
            x0, eps = predict(z, t)
            return (x0 + push, eps) if t == first else (x0, eps)

        ddim(shifted, start, schedule)
        return seen[1]

    moved = watching(0.25) - watching(0.0)
    signal = schedule.signal(schedule.steps[0][1])
    torch.testing.assert_close(moved, torch.full_like(moved, 0.25 * float(signal)))


def test_a_schedule_of_flow_matching_needs_no_other_sampler():
    mean, spread, times = 0.5, 0.2, [*range(990, 0, -10), 0]
    flow = Flow(tuple(pairwise(times)))
    end = torch.randn(64, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))

    def predict(z, t):
        # The exact prediction for data from N(mean, spread^2).
        signal, noise = flow.signal(t), flow.noise(t)
        x0 = mean + spread**2 * signal / (spread**2 * signal**2 + noise**2) * (z - signal * mean)
        return x0, (z - signal * x0) / noise

    start = 0.01 * mean + (0.01**2 * spread**2 + 0.99**2) ** 0.5 * end
    torch.testing.assert_close(ddim(predict, start, flow), mean + spread * end, rtol=0, atol=0.02)


def test_a_schedule_of_flow_matching_needs_no_other_guidance(network, classifier):
    flow, label = Flow(((700, 350), (350, 0))), torch.tensor([0, 1, 2, 3])
    z = torch.randn(4, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    predict = model_function(network, flow, "epsilon")
    x0, eps = guide(predict, classifier, entropy, label, flow, Guidance(0.03, every=1))(z, 700)
    moved = flow.signal(700) * x0 + flow.noise(700) * eps - z
    torch.testing.assert_close(moved.norm(dim=1), 0.03 * z.norm(dim=1), rtol=1e-4, atol=1e-6)

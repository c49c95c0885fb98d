import pytest
import torch
from diffusers import DDIMScheduler

from fgsynth.sampler import ddim
from fgsynth.schedule import Schedule, model_function


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
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


def test_sampling_leaves_no_graph(schedule):
    weight = torch.ones(3, requires_grad=True)
    predict = model_function(lambda z, t: z * weight, schedule, "epsilon")
    assert not ddim(predict, torch.randn(2, 3), schedule).requires_grad

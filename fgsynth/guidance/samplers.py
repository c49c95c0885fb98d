"""The sampler in the paper's symbols, for any model function, guided or not."""

import torch
from torch import Tensor

from fgsynth.guidance.schedule import Predict, Schedule
from fgsynth.utils.progress import progress


@torch.no_grad()
def ddim(predict: Predict, z: Tensor, schedule: Schedule, *, bar: str | None = None) -> Tensor:
    """DDIM, deterministic (eta = 0): z_prev = signal_prev x0_hat + noise_prev eps_hat.

    Song et al. 2021; FG eq. 1; on a flow it is Euler's method. Takes a model function and standard normal
    noise z (n, ...); returns clean latents (n, ...). bar: label of a progress bar over the steps; None for
    none.
    """
    for t, t_prev in progress(schedule.steps, bar) if bar else schedule.steps:
        x0, eps = predict(z, t)
        z = schedule.signal(t_prev, z.device) * x0 + schedule.noise(t_prev, z.device) * eps
    return z

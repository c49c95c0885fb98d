"""DDIM in the paper's symbols. A sampler never knows what the model is, nor whether it is guided."""

import torch
from torch import Tensor

from fgsynth.progress import progress
from fgsynth.schedule import Predict, Schedule


@torch.no_grad()
def ddim(predict: Predict, z: Tensor, schedule: Schedule, *, bar: str | None = None) -> Tensor:
    """DDIM sampling, deterministic (eta = 0; Song et al. 2021, FG eq. 1).

    `z` is standard normal noise of shape (n, ...); returns the clean latents, same shape.
    `bar` names a progress bar over the steps.
    """
    for t, t_prev in progress(schedule.steps, bar) if bar else schedule.steps:
        x0, eps = predict(z, t)
        abar_prev = schedule.abar(t_prev).to(z.device)
        z = abar_prev.sqrt() * x0 + (1 - abar_prev).sqrt() * eps
    return z

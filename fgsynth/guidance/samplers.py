"""Samplers in the paper's symbols. None of them knows what the model is, nor whether it is guided."""

from collections.abc import Callable

import torch
from torch import Tensor

from fgsynth.guidance.schedule import Predict, Schedule, x0_from_eps
from fgsynth.utils.progress import progress


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


@torch.no_grad()
def dpm_solver_2m(predict: Predict, z: Tensor, schedule: Schedule) -> Tensor:
    """DPM-Solver++(2M), deterministic and of second order (Lu et al. 2022, algorithm 2), at DDIM's steps.

    One call of the model per step, as DDIM; the first and the last step are of first order, which is DDIM's.
    What guidance did to x0 beyond what the noise prediction says is no part of the path that is extrapolated:
    it moves the latent once, as it does under DDIM. z: standard normal noise (n, ...); returns that shape.
    """
    last, h_last = None, 0.0
    for i, (t, t_prev) in enumerate(schedule.steps):
        x0, eps = predict(z, t)
        abar, abar_prev = (schedule.abar(s).double() for s in (t, t_prev))
        unpushed = x0_from_eps(z, eps, abar.to(z))
        # exp(-h), h the step in log(signal / noise), which is infinite where the last step ends.
        decay = ((1 / abar_prev - 1) / (1 / abar - 1)).sqrt()
        h = -float(decay.log())
        clean = unpushed
        if last is not None and i + 1 < len(schedule.steps):
            # Extrapolated to the middle of the step, from the predictions of this step and the last.
            clean = unpushed + (h / (2 * h_last)) * (unpushed - last)
        signal, noise = abar_prev.sqrt(), (1 - abar_prev).sqrt()
        keep = (noise / (1 - abar).sqrt()).to(z)
        z = keep * z + (signal * (1 - decay)).to(z) * clean + signal.to(z) * (x0 - unpushed)
        last, h_last = unpushed, h
    return z


SOLVERS: dict[str, Callable[[Predict, Tensor, Schedule], Tensor]] = {"ddim": ddim, "dpm++2m": dpm_solver_2m}
"""Samplers by name."""

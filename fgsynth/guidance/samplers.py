"""Samplers in the paper's symbols, for any model function, guided or not."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from fgsynth.guidance.schedule import Predict, Schedule, x0_from_eps
from fgsynth.utils.errors import UserError
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


@torch.no_grad()
def dpm_solver_2m(predict: Predict, z: Tensor, schedule: Schedule) -> Tensor:
    """DPM-Solver++(2M), deterministic and of second order, at DDIM's steps (Lu et al. 2022, algorithm 2).

    One network evaluation per step; the first and the last step are of first order, which is DDIM.
    Only the unguided prediction x0 = (z - noise eps) / signal is extrapolated: a push by guidance moves the
    latent once, as under DDIM. Arguments and result are those of `ddim`. Raises UserError where the first
    step has no signal, as a flow's.
    """
    if not schedule.signal(schedule.steps[0][0]):
        raise UserError("Solver 'dpm++2m' divides by the signal, and a flow begins without: take 'ddim'.")
    last, h_last = None, 0.0
    for i, (t, t_prev) in enumerate(schedule.steps):
        x0, eps = predict(z, t)
        # Steps in log(signal / noise) are small differences: in double precision.
        signal, signal_prev = (schedule.signal(s, dtype=torch.float64) for s in (t, t_prev))
        noise, noise_prev = (schedule.noise(s, dtype=torch.float64) for s in (t, t_prev))
        unguided = x0_from_eps(z, eps, schedule.signal(t, z.device), schedule.noise(t, z.device))
        # exp(-h), h the step in log(signal / noise), which is infinite where the last step ends.
        decay = (noise_prev / signal_prev) / (noise / signal)
        h = -float(decay.log())
        clean = unguided
        if last is not None and i + 1 < len(schedule.steps):
            # Extrapolated to the middle of the step, from the predictions of this step and the last.
            clean = unguided + (h / (2 * h_last)) * (unguided - last)
        keep, new = (noise_prev / noise).to(z), (signal_prev * (1 - decay)).to(z)
        z = keep * z + new * clean + signal_prev.to(z) * (x0 - unguided)
        last, h_last = unguided, h
    return z


Solver = Literal["ddim", "dpm++2m"]
SOLVERS: dict[Solver, Callable[..., Tensor]] = {"ddim": ddim, "dpm++2m": dpm_solver_2m}
"""Samplers by name."""

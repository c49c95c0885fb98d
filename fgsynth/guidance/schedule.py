"""Noise schedule in terms of signal and noise, and the model function that samplers and guidance take."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler, SchedulerMixin
from torch import Tensor

from fgsynth.config.checked import checked
from fgsynth.utils.errors import UserError

SPACINGS = ("leading", "linspace", "trailing")
"""Of sampling steps over training steps, as diffusers names them."""
Predict = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""The model function `predict(z_t, t) -> (x0_hat, eps_hat)`; all three of shape (n, ...)."""


@dataclass(frozen=True)
class Schedule:
    """Noise schedule z_t = signal(t) x0 + noise(t) eps, and the steps that a sampler takes.

    Variance preserving: signal = sqrt(abar), noise = sqrt(1 - abar). Samplers and guidance use `signal`,
    `noise` and `steps` only, so any other schedule that has the three serves them as well.

    alphas_cumprod: abar_t of every training step, (T,); final_alpha_cumprod: abar at the end, a scalar;
    steps: pairs (t, previous t) in sampling order; a previous t below 0 is the end of sampling.
    """

    alphas_cumprod: Tensor
    final_alpha_cumprod: Tensor
    steps: tuple[tuple[int, int], ...]

    @classmethod
    @checked
    def from_scheduler(cls, scheduler: SchedulerMixin, n_steps: int) -> "Schedule":
        """Schedule of `n_steps` DDIM steps, spaced as diffusers spaces them (Song et al. 2021).

        Raises UserError for a scheduler other than DDIM (one with memory breaks under a shifted latent), one
        that clips its x0 prediction, ends at zero signal or predicts what `model_function` does not take,
        and for a number or spacing of steps that it does not have.
        """
        if not isinstance(scheduler, DDIMScheduler):
            raise UserError(
                f"{type(scheduler).__name__} is not a DDIM scheduler: guidance shifts the latent, which "
                "only a scheduler without memory survives; use DDIMScheduler.from_config(scheduler.config)."
            )
        if scheduler.config["clip_sample"] or scheduler.config["thresholding"]:
            raise UserError(
                "The scheduler clips its x0 prediction (clip_sample or thresholding): set both to false."
            )
        _check_prediction(scheduler.config["prediction_type"])
        total, spacing = scheduler.config["num_train_timesteps"], scheduler.config["timestep_spacing"]
        if spacing not in SPACINGS:
            raise UserError(
                f"The scheduler's timestep_spacing is '{spacing}': choose one of {', '.join(SPACINGS)}."
            )
        if not 1 <= n_steps <= total:
            raise UserError(f"{n_steps} sampling steps: choose between 1 and {total}.")
        if not bool((scheduler.alphas_cumprod > 0).all()):
            raise UserError(
                "The schedule ends at zero signal (rescale_betas_zero_snr), where x0 cannot be computed "
                "from the noise prediction: set rescale_betas_zero_snr to false."
            )
        scheduler.set_timesteps(n_steps)
        if int(max(scheduler.timesteps)) >= total:
            raise UserError(
                f"{n_steps} sampling steps from an offset of {scheduler.config['steps_offset']} leave the "
                f"schedule's {total} steps: choose fewer."
            )
        stride = total // n_steps
        steps = tuple((int(t), int(t) - stride) for t in scheduler.timesteps)
        return cls(scheduler.alphas_cumprod, scheduler.final_alpha_cumprod, steps)

    def signal(self, t: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """sqrt(abar_t), a scalar tensor computed in `dtype` (default: the schedule's own, float32)."""
        return self._abar(t).to(device=device, dtype=dtype).sqrt()

    def noise(self, t: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """sqrt(1 - abar_t), a scalar tensor computed in `dtype` (default: the schedule's own, float32)."""
        return (1 - self._abar(t).to(device=device, dtype=dtype)).sqrt()

    def _abar(self, t: int) -> Tensor:
        return self.alphas_cumprod[t] if t >= 0 else self.final_alpha_cumprod


def x0_from_eps(z: Tensor, eps: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """One-step prediction of the clean sample, x0 = (z - noise eps) / signal (FG eq. 1)."""
    return (z - noise * eps) / signal


def model_function(
    network: Callable[[Tensor, int], Tensor], schedule: Schedule, prediction_type: str
) -> Predict:
    """Model function of a network that predicts epsilon or v.

    epsilon: eps = out and x0 by FG eq. 1; v: x0 = signal z - noise v and eps = signal v + noise z (Salimans
    and Ho 2022, appendix D). No other function of the package depends on the kind of prediction.

    network: `(z_t, t) -> out`, both (n, ...), trained with this schedule. prediction_type: as diffusers names
    it. Raises UserError for any other prediction type than "epsilon" and "v_prediction".
    """
    _check_prediction(prediction_type)

    def predict(z: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The contract of `Predict`."""
        signal, noise = schedule.signal(t, z.device), schedule.noise(t, z.device)
        out = network(z, t)
        if prediction_type == "epsilon":
            return x0_from_eps(z, out, signal, noise), out
        return signal * z - noise * out, signal * out + noise * z

    return predict


def _check_prediction(kind: str) -> None:
    if kind not in ("epsilon", "v_prediction"):
        raise UserError(f"Prediction type '{kind}' is not supported: use 'epsilon' or 'v_prediction'.")

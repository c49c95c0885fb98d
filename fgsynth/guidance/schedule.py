"""The noise schedule and the model function: epsilon- and v-prediction are told apart here only."""

from collections.abc import Callable
from dataclasses import dataclass

from diffusers import DDIMScheduler
from torch import Tensor

from fgsynth.utils.errors import UserError

Predict = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""The model function `predict(z_t, t) -> (x0_hat, eps_hat)`; all three of shape (n, ...)."""


@dataclass(frozen=True)
class Schedule:
    """A DDIM noise schedule: abar_t for every training step, and the steps a sampler visits.

    `steps` holds pairs (t, previous t) in sampling order; a previous t below 0 means clean data.
    """

    alphas_cumprod: Tensor
    final_alpha_cumprod: Tensor
    steps: tuple[tuple[int, int], ...]

    @classmethod
    def from_scheduler(cls, scheduler: DDIMScheduler, n_steps: int) -> "Schedule":
        """DDIM time steps as diffusers spaces them (Song et al. 2021; FG eq. 1).

        Raises UserError for a scheduler other than DDIM (one with memory breaks under a shifted
        latent), one that clips its x0 prediction, or one whose last abar is zero.
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
        total = scheduler.config["num_train_timesteps"]
        if not 1 <= n_steps <= total:
            raise UserError(f"{n_steps} sampling steps asked for; choose between 1 and {total}.")
        if not bool((scheduler.alphas_cumprod > 0).all()):
            raise UserError(
                "The schedule ends at zero signal (rescale_betas_zero_snr), where x0 cannot be read "
                "off the noise prediction: set rescale_betas_zero_snr to false."
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

    def abar(self, t: int) -> Tensor:
        """The cumulative signal power abar_t in (0, 1], a scalar tensor; t < 0 is the end of sampling."""
        return self.alphas_cumprod[t] if t >= 0 else self.final_alpha_cumprod


def x0_from_eps(z: Tensor, eps: Tensor, abar: Tensor) -> Tensor:
    """One-step prediction of the clean sample, x0 = (z - sqrt(1-abar) eps) / sqrt(abar) (FG eq. 1)."""
    return (z - (1 - abar).sqrt() * eps) / abar.sqrt()


def model_function(
    network: Callable[[Tensor, int], Tensor], schedule: Schedule, prediction_type: str
) -> Predict:
    """A network's raw output read as (x0, eps), for "epsilon" and "v_prediction" networks.

    epsilon: eps = out, x0 by FG eq. 1. v: x0 = sqrt(abar) z - sqrt(1-abar) v and
    eps = sqrt(abar) v + sqrt(1-abar) z (Salimans and Ho 2022, appendix D).
    Raises UserError for any other prediction type.
    """
    if prediction_type not in ("epsilon", "v_prediction"):
        raise UserError(
            f"Prediction type '{prediction_type}' is not supported: use 'epsilon' or 'v_prediction'."
        )

    def predict(z: Tensor, t: int) -> tuple[Tensor, Tensor]:
        abar = schedule.abar(t).to(z.device)
        out = network(z, t)
        if prediction_type == "epsilon":
            return x0_from_eps(z, out, abar), out
        signal, sigma = abar.sqrt(), (1 - abar).sqrt()
        return signal * z - sigma * out, signal * out + sigma * z

    return predict

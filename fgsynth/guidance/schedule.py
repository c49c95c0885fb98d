"""Noise schedules in terms of signal and noise, and the model function that samplers and guidance take."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, SchedulerMixin
from torch import Tensor

from fgsynth.config.checked import checked
from fgsynth.utils.errors import UserError

SPACINGS = ("leading", "linspace", "trailing")
"""Of sampling steps over training steps, as diffusers names them."""
FLOW = "flow_prediction"
KINDS = ("epsilon", "v_prediction", "sample", FLOW)
"""What networks predict, as diffusers names it: noise, velocity of a diffusion, x0, velocity of a flow."""
Device: TypeAlias = torch.device | None
Dtype: TypeAlias = torch.dtype | None
Predict = Callable[[Tensor, float], tuple[Tensor, Tensor]]
"""The model function `predict(z_t, t) -> (x0_hat, eps_hat)`; all three of shape (n, ...)."""


class Schedule(ABC):
    """Noise schedule z_t = signal(t) x0 + noise(t) eps, and the steps that a sampler takes.

    Two kinds, told apart by the scheduler that describes them: `Diffusion` and `Flow`.
    steps: pairs (t, previous t) in sampling order; kind: what its networks predict, one of KINDS.
    """

    steps: tuple[tuple[float, float], ...]
    kind: str

    @classmethod
    @checked
    def from_scheduler(
        cls, scheduler: SchedulerMixin, n_steps: int, *, tokens: int = 0, evenly: bool = False
    ) -> "Schedule":
        """Schedule of `n_steps` steps, spaced as diffusers spaces them: DDIM's, or those of a flow.

        tokens: of an image, by which some flows shift their steps; evenly: a flow's steps before the shift,
        as FLUX takes them. Raises UserError for any other scheduler (one with memory breaks under a shifted
        latent), one that clips its x0 prediction, ends at zero signal or predicts what `model_function` does
        not take, and for a number or spacing of steps that it does not have.
        """
        total = scheduler.config["num_train_timesteps"]
        if not 1 <= n_steps <= total:
            raise UserError(f"{n_steps} sampling steps: choose between 1 and {total}.")
        if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            return Flow.of(scheduler, n_steps, tokens, evenly)
        if not isinstance(scheduler, DDIMScheduler):
            raise UserError(
                f"{type(scheduler).__name__} is not a DDIM scheduler, nor Euler's of a flow: guidance shifts "
                "the latent, which only a scheduler without memory survives; use "
                "DDIMScheduler.from_config(scheduler.config)."
            )
        return Diffusion.of(scheduler, n_steps)

    @abstractmethod
    def signal(
        self, t: float, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """The factor of x0, a scalar tensor computed in `dtype` (default: float32)."""

    @abstractmethod
    def noise(self, t: float, device: Device = None, dtype: Dtype = None) -> Tensor:
        """The factor of eps, a scalar tensor computed in `dtype` (default: float32)."""

    @abstractmethod
    def held(self, x: Tensor, t: float) -> Tensor:
        """What x0 moves by when z moves by x while the network's prediction is held.

        So it is with gradients: of z, from one of x0, where the prediction counts as constant.
        """

    @abstractmethod
    def moved(self, x0: Tensor, eps: Tensor, push: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """Predictions of a latent that is pushed while the network's prediction is held."""


@dataclass(frozen=True)
class Diffusion(Schedule):
    """Variance preserving: signal = sqrt(abar), noise = sqrt(1 - abar) (Song et al. 2021).

    alphas_cumprod: abar_t of every training step, (T,); final_alpha_cumprod: abar at the end, a scalar; a
    previous t below 0 is the end of sampling.
    """

    alphas_cumprod: Tensor
    final_alpha_cumprod: Tensor
    steps: tuple[tuple[float, float], ...]
    kind: str

    @classmethod
    def of(cls, scheduler: DDIMScheduler, n_steps: int) -> "Diffusion":
        """DDIM's steps; raises UserError as `Schedule.from_scheduler`."""
        if scheduler.config["clip_sample"] or scheduler.config["thresholding"]:
            raise UserError(
                "The scheduler clips its x0 prediction (clip_sample or thresholding): set both to false."
            )
        kind = scheduler.config["prediction_type"]
        _check_prediction(kind)
        total, spacing = scheduler.config["num_train_timesteps"], scheduler.config["timestep_spacing"]
        if spacing not in SPACINGS:
            raise UserError(
                f"The scheduler's timestep_spacing is '{spacing}': choose one of {', '.join(SPACINGS)}."
            )
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
        return cls(scheduler.alphas_cumprod, scheduler.final_alpha_cumprod, steps, kind)

    def signal(
        self, t: float, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """sqrt(abar_t)."""
        return self._abar(t).to(device=device, dtype=dtype).sqrt()

    def noise(self, t: float, device: Device = None, dtype: Dtype = None) -> Tensor:
        """sqrt(1 - abar_t)."""
        return (1 - self._abar(t).to(device=device, dtype=dtype)).sqrt()

    def held(self, x: Tensor, t: float) -> Tensor:
        """By 1 / signal: the noise prediction is held, as in the released sampler."""
        return x / self.signal(t, x.device)

    def moved(self, x0: Tensor, eps: Tensor, push: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """x0 alone moves."""
        return x0 + self.held(push, t).to(x0.dtype), eps

    def _abar(self, t: float) -> Tensor:
        return self.alphas_cumprod[int(t)] if t >= 0 else self.final_alpha_cumprod


@dataclass(frozen=True)
class Flow(Schedule):
    """Flow matching (Lipman et al. 2023): signal = 1 - sigma, noise = sigma, sigma = t / total.

    Its networks predict the velocity v = eps - x0, and DDIM's step is Euler's: z_prev = z + (sigma_prev -
    sigma) v. The first step has no signal. steps: t = total sigma is a number, not an index; the last is 0.
    """

    steps: tuple[tuple[float, float], ...]
    total: float = 1000.0
    kind: str = FLOW

    @classmethod
    def of(
        cls, scheduler: FlowMatchEulerDiscreteScheduler, n_steps: int, tokens: int, evenly: bool
    ) -> "Flow":
        """The scheduler's own steps; raises UserError for sigmas that run the other way."""
        if scheduler.config["invert_sigmas"]:
            raise UserError("The scheduler inverts its sigmas (invert_sigmas): set it to false.")
        c, given = scheduler.config, np.linspace(1, 1 / n_steps, n_steps) if evenly else None
        # By the logarithm of the signal-to-noise ratio, linear in an image's tokens (Esser et al. 2024).
        share = (tokens - c["base_image_seq_len"]) / (c["max_image_seq_len"] - c["base_image_seq_len"])
        shift = c["base_shift"] + share * (c["max_shift"] - c["base_shift"])
        scheduler.set_timesteps(n_steps, sigmas=given, mu=shift if c["use_dynamic_shifting"] else None)
        times = [*scheduler.timesteps.tolist(), 0.0]
        return cls(tuple(pairwise(times)), c["num_train_timesteps"])

    def signal(
        self, t: float, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """What sigma leaves, 1 - sigma."""
        return 1 - self.noise(t, device, dtype)

    def noise(self, t: float, device: Device = None, dtype: Dtype = None) -> Tensor:
        """The standard deviation sigma."""
        return torch.tensor(t / self.total, device=device, dtype=dtype)

    def held(self, x: Tensor, t: float) -> Tensor:
        """As far: the velocity is held, and x0 = z - sigma v."""
        return x

    def moved(self, x0: Tensor, eps: Tensor, push: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """x0 and eps = z + signal v move alike."""
        push = push.to(x0.dtype)
        return x0 + push, eps + push


def without_memory(scheduler: SchedulerMixin) -> SchedulerMixin:
    """DDIM, or Euler of a flow, with the noise schedule that a pipeline's scheduler describes.

    Latents have no range to clip to, whatever the file says. Raises UserError where it describes neither.
    """
    config: Any = scheduler.config
    if type(scheduler).__name__.startswith("FlowMatch"):
        return FlowMatchEulerDiscreteScheduler.from_config(config)
    if "beta_schedule" not in config or config.get("use_flow_sigmas"):
        raise UserError(
            f"The scheduler {type(scheduler).__name__} describes neither a diffusion by its betas nor a "
            "flow, as FlowMatchEulerDiscreteScheduler does, and others are not sampled here: take a model of "
            "one."
        )
    return DDIMScheduler.from_config(config, clip_sample=False, thresholding=False)


def x0_from_eps(z: Tensor, eps: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """One-step prediction of the clean sample, x0 = (z - noise eps) / signal (FG eq. 1)."""
    return (z - noise * eps) / signal


def model_function(
    network: Callable[[Tensor, float], Tensor], schedule: Schedule, prediction_type: str
) -> Predict:
    """Model function of a network that predicts epsilon, v, x0 or the velocity of a flow.

    epsilon: eps = out and x0 by FG eq. 1; v: x0 = signal z - noise v and eps = signal v + noise z (Salimans
    and Ho 2022, appendix D); sample: x0 = out; flow, v = eps - x0: x0 = z - noise v and eps = z + signal v.
    No other function of the package depends on the kind of prediction.

    network: `(z_t, t) -> out`, both (n, ...), trained with this schedule. prediction_type: as diffusers names
    it. Raises UserError for any other than KINDS, and for a flow's on a schedule that is none.
    """
    _check_prediction(prediction_type)

    def predict(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """The contract of `Predict`."""
        signal, noise = schedule.signal(t, z.device), schedule.noise(t, z.device)
        out = network(z, t)
        if prediction_type == "epsilon":
            return x0_from_eps(z, out, signal, noise), out
        if prediction_type == "sample":
            return out, (z - signal * out) / noise
        if prediction_type == FLOW:
            return z - noise * out, z + signal * out
        return signal * z - noise * out, signal * out + noise * z

    return predict


def _check_prediction(kind: str) -> None:
    if kind not in KINDS:
        raise UserError(
            f"Prediction type '{kind}' is not supported: use one of {', '.join(map(repr, KINDS))}."
        )

"""Feedback guidance: wraps a model function so that a classifier's criterion rises during sampling."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from fgsynth.config.checked import Checked
from fgsynth.config.schema import Count, NotNegative
from fgsynth.guidance.criteria import Criterion
from fgsynth.guidance.schedule import Predict, Schedule, x0_from_eps
from fgsynth.utils.errors import UserError

Classifier = Callable[[Tensor], tuple[Tensor, Tensor]]
"""`classifier(x (n, ...)) -> (logits (n, c), embedding (n, k))`."""


@dataclass(frozen=True)
class Guidance(Checked):
    """Settings of feedback guidance (FG 3.1; the released sampler for the relative scaling).

    scale: the feedback scale w; 0 switches guidance off. scaling: "relative" moves the latent by w of its own
    norm per guided step, the reading in which the printed w = 0.03 makes sense; "raw" is FG eq. 3 to the
    letter. every, start, stop: guided steps are range(start, stop, every), counted from the noisiest.
    through_network: differentiate the one-step prediction through the network (exact), or treat what it
    predicts as constant (cheap). reuse: push by the last gradient on the steps in between as well (FG's
    future work), at no cost. Raises UserError for a setting out of its range, by name.
    """

    scale: NotNegative = 0.03
    scaling: Literal["relative", "raw"] = "relative"
    every: Count = 5
    start: Annotated[int, Field(ge=0)] = 0
    stop: int | None = None
    through_network: bool = True
    reuse: bool = False

    def guided_steps(self, n_steps: int) -> range:
        """Which of `n_steps` compute a gradient. Raises UserError where a positive scale guides none."""
        return self._window(n_steps)[:: self.every]

    def pushed_steps(self, n_steps: int) -> range:
        """Which of `n_steps` push the latent: the guided ones and, with `reuse`, those in between."""
        return self._window(n_steps)[:: 1 if self.reuse else self.every]

    def _window(self, n_steps: int) -> range:
        window = range(n_steps)[self.start : self.stop] if self.scale > 0 else range(0)
        if self.scale > 0 and not window:
            raise UserError(
                f"Guidance from step {self.start} to {self.stop} guides none of {n_steps} steps: "
                "set start and stop within them."
            )
        return window


@dataclass
class GuidedModel:
    """Guided model function with a record of its criterion values; `guide` makes it.

    values: per guided step, the criterion at x0_hat before the push, (n,) each. non_finite: guided steps with
    a NaN or infinity in the sample's gradient, (n,); the sample is not pushed there.
    """

    predict: Predict
    decode: Callable[[Tensor], Tensor]
    classifier: Classifier
    criterion: Criterion
    label: Tensor
    schedule: Schedule
    guidance: Guidance
    one_by_one: bool = False
    values: list[Tensor] = field(default_factory=list)
    non_finite: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.non_finite = torch.zeros(len(self.label), dtype=torch.long)
        times = [t for t, _ in self.schedule.steps]
        self._guided = {times[i] for i in self.guidance.guided_steps(len(times))}
        self._pushed = {times[i] for i in self.guidance.pushed_steps(len(times))}
        self._last: Tensor | None = None
        if self.guidance.scaling == "raw" and any(not self.schedule.signal(t) for t in self._pushed):
            raise UserError(
                "Guidance with scaling 'raw' divides by the signal, of which the first step of a flow has "
                "none: set start to 1, or scaling to 'relative'."
            )

    def __call__(self, z: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """The model function contract: (z_t (n, ...), t) -> (x0_hat, eps_hat), detached."""
        if t in self._guided:
            x0, eps, gradient = self.gradient(z, t)
            self._last = gradient
        elif t in self._pushed and self._last is not None:
            (x0, eps), gradient = self.predict(z, t), self._last
        else:
            return self.predict(z, t)
        w = self.guidance.scale
        if self.guidance.scaling == "raw":
            # The score -eps / noise gains w g, so eps loses noise w g; x0 follows from z and eps.
            signal, noise = self.schedule.signal(t, z.device), self.schedule.noise(t, z.device)
            eps = eps - noise * w * gradient
            return x0_from_eps(z, eps, signal, noise), eps
        # The released sampler moves the latent and keeps the network's prediction.
        push = w * _norm(z) / (_norm(gradient) + 1e-8) * gradient
        return self.schedule.moved(x0, eps, push, t)

    def gradient(self, z: Tensor, t: float) -> tuple[Tensor, Tensor, Tensor]:
        """Compute x0_hat, eps_hat and grad_z C, (n, ...) each, and record the criterion values."""
        exact = self.guidance.through_network
        z_in = z.detach().requires_grad_(exact)
        with torch.set_grad_enabled(exact):
            x0, eps = self.predict(z_in, t)
        value, gradient = self._one_by_one(x0) if self.one_by_one else self._at_once(x0)
        with torch.enable_grad():
            if exact:
                # Through the network at unit size, as a half-precision one would round it to zero.
                size = gradient.abs().flatten(1).amax(1).reshape(-1, *[1] * (z.ndim - 1))
                unit = torch.where(size > 0, gradient / size, gradient)
                gradient = torch.autograd.grad(x0, z_in, unit)[0] * size
            else:
                gradient = self.schedule.held(gradient, t)
        bad = ~torch.isfinite(gradient).flatten(1).all(1)
        self.non_finite += bad.cpu()
        self.values.append(value.detach())
        keep = (~bad).reshape(-1, *[1] * (z.ndim - 1))
        return x0.detach(), eps.detach(), torch.where(keep, gradient, torch.zeros_like(gradient))

    def _at_once(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """The criterion of every sample, (n,), and its gradient with respect to x0_hat."""
        with torch.enable_grad():
            x0 = x0.detach().requires_grad_(True)
            value = self.criterion(*self.classifier(self.decode(x0)), self.label)
            # A sum, not a mean: the gradient of a sample must not depend on the size of its batch.
            return value, torch.autograd.grad(value.sum(), x0)[0]

    def _one_by_one(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """The same, with one sample's decoding in memory at a time."""
        parts = []
        with torch.enable_grad():
            for i, one in enumerate(x0.detach().split(1)):
                one = one.requires_grad_(True)
                logits, embedding = self.classifier(self.decode(one))
                # A criterion may depend on a sample's place in the batch (`combined`): the i-th of n copies.
                copies = logits.expand(len(x0), -1), embedding.expand(len(x0), -1)
                value = self.criterion(*copies, self.label)[i]
                parts.append((value.detach(), torch.autograd.grad(value, one)[0]))
        values, gradients = zip(*parts, strict=True)
        return torch.stack(values), torch.cat(gradients)


def guide(
    predict: Predict,
    classifier: Classifier,
    criterion: Criterion,
    label: Tensor,
    schedule: Schedule,
    guidance: Guidance,
    decode: Callable[[Tensor], Tensor] = lambda z: z,
    *,
    one_by_one: bool = False,
) -> GuidedModel:
    """Feedback guidance of a model function by grad_z C(f, Dec(x0_hat), y) (FG eq. 3 and 3.1.2).

    The criterion C rises. Norms and gradients are per sample. Returns a model function with a record of
    criterion values and non-finite gradients.

    predict, schedule: the unguided model function and its noise schedule. classifier: f, of what `decode`
    makes of latents, which must be differentiable. criterion: C, one of `criteria` or any callable of its
    type; label: the class y of every sample of the batch, (n,). one_by_one: decode and classify sample by
    sample, to save memory; the network's batch stays whole.
    """
    return GuidedModel(predict, decode, classifier, criterion, label, schedule, guidance, one_by_one)


def _norm(x: Tensor) -> Tensor:
    """Euclidean norm per sample, (n, 1, ...), in float32 at least (half precision overflows)."""
    x = x if x.dtype == torch.float64 else x.float()
    return x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))

"""Feedback guidance: wraps a model function so that a classifier's criterion rises along the way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
from torch import Tensor

from fgsynth.guidance.criteria import Criterion
from fgsynth.guidance.schedule import Predict, Schedule, x0_from_eps
from fgsynth.utils.errors import UserError

T = TypeVar("T")
Classifier = Callable[[Tensor], tuple[Tensor, Tensor]]
"""`classifier(x (n, ...)) -> (logits (n, c), embedding (n, k))`."""


@dataclass(frozen=True)
class Guidance:
    """Settings of feedback guidance (FG 3.1; released sampler for the relative scaling).

    scale: the feedback scale w; 0 switches guidance off.
    scaling: "relative" moves the latent by w of its own norm per guided step (the reading in which
        the printed w = 0.03 makes sense); "raw" is FG eq. 3 to the letter.
    every, start, stop: guided steps are range(start, stop, every), counted from the noisiest.
    through_network: differentiate the one-step prediction through the network (exact), or treat
        its noise prediction as constant (cheap).
    reuse: push again by the last gradient on the steps in between (FG's future work); it costs nothing.
    """

    scale: float = 0.03
    scaling: Literal["relative", "raw"] = "relative"
    every: int = 5
    start: int = 0
    stop: int | None = None
    through_network: bool = True
    reuse: bool = False

    def __post_init__(self) -> None:
        if self.scaling not in ("relative", "raw"):
            raise UserError(f"Unknown scaling '{self.scaling}': choose 'relative' or 'raw'.")
        if not self.scale >= 0:
            raise UserError(f"Feedback scale {self.scale}: must be 0 (off) or positive.")
        if self.every < 1 or self.start < 0:
            raise UserError(f"Guidance every {self.every} from step {self.start}: every >= 1, start >= 0.")

    def guided(self, steps: Sequence[T]) -> Sequence[T]:
        """The steps of a path, noisiest first, that are guided."""
        return steps[self.start : self.stop : self.every]


@dataclass
class GuidedModel:
    """A guided model function; `values` and `non_finite` record what guidance saw and did.

    values: per guided step, the criterion of every sample at its x0_hat before the push, (n,) each.
    non_finite: per sample, how many guided steps gave a gradient with a NaN or infinity; such a
        sample is not pushed at that step.
    """

    predict: Predict
    decode: Callable[[Tensor], Tensor]
    classifier: Classifier
    criterion: Criterion
    label: Tensor
    schedule: Schedule
    guidance: Guidance
    one_by_one: bool = False
    weight: Tensor | None = None
    values: list[Tensor] = field(default_factory=list)
    non_finite: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.non_finite = torch.zeros(len(self.label), dtype=torch.long)
        g = self.guidance
        window = [t for t, _ in self.schedule.steps[g.start : g.stop]] if g.scale > 0 else []
        if g.scale > 0 and not window:
            raise UserError(
                f"Guidance from step {g.start} to {g.stop} guides none of {len(self.schedule.steps)} steps: "
                "set start and stop within them."
            )
        self._guided = set(g.guided([t for t, _ in self.schedule.steps])) if window else set()
        self._reused = set(window) - self._guided if g.reuse else set()
        self._last: Tensor | None = None

    def __call__(self, z: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The model function contract: (z_t (n, ...), t) -> (x0_hat, eps_hat), detached."""
        if t in self._guided:
            x0, eps, gradient = self.gradient(z, t)
            self._last = gradient
        elif t in self._reused and self._last is not None:
            (x0, eps), gradient = self.predict(z, t), self._last
        else:
            return self.predict(z, t)
        w, abar = self._scale(z), self.schedule.abar(t).to(z.device)
        if self.guidance.scaling == "raw":
            # The score gains w g, so eps loses sqrt(1-abar) w g; x0 follows from z and eps.
            eps = eps - (1 - abar).sqrt() * w * gradient
            return x0_from_eps(z, eps, abar), eps
        # The released sampler moves the latent and keeps the noise prediction: x0 moves by 1/sqrt(abar).
        push = w * _norm(z) / (_norm(gradient) + 1e-8) * gradient / abar.sqrt()
        return x0 + push.to(x0.dtype), eps

    def _scale(self, z: Tensor) -> Tensor | float:
        """The feedback scale, of each sample where these differ, (n, 1, ...)."""
        if self.weight is None:
            return self.guidance.scale
        return self.guidance.scale * self.weight.to(z).reshape(-1, *[1] * (z.ndim - 1))

    def gradient(self, z: Tensor, t: int) -> tuple[Tensor, Tensor, Tensor]:
        """x0_hat, eps_hat and grad_z C of every sample, (n, ...) each; the record grows by one step."""
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
                gradient = gradient / self.schedule.abar(t).to(z.device).sqrt()
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
            # A sum, not a mean: the gradient of a sample must not know how large its batch is.
            return value, torch.autograd.grad(value.sum(), x0)[0]

    def _one_by_one(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """The same with one sample's decoding in memory at a time."""
        parts = []
        with torch.enable_grad():
            for i, one in enumerate(x0.detach().split(1)):
                one = one.requires_grad_(True)
                logits, embedding = self.classifier(self.decode(one))
                # A criterion may know samples by their place (`combined`): of n copies the i-th is asked.
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
    weight: Tensor | None = None,
) -> GuidedModel:
    """Feedback guidance of a model function by grad_z C(f, Dec(x0_hat), y) (FG eq. 3 and 3.1.2).

    predict: the unguided model function. decode: latents to the classifier's input, differentiable.
    label: (n,), the class of every sample of the batch. C must rise; norms are per sample. one_by_one: decode
    and classify sample by sample, where a batch's would not fit into memory; the denoiser keeps its batch.
    weight: (n,), what the feedback scale is times, for every sample.
    Returns a model function with a record of criterion values and non-finite gradients.
    """
    settings = schedule, guidance, one_by_one, weight
    return GuidedModel(predict, decode, classifier, criterion, label, *settings)


def _norm(x: Tensor) -> Tensor:
    """Euclidean norm per sample, (n, 1, ...), in float32 at least (half precision overflows)."""
    x = x if x.dtype == torch.float64 else x.float()
    return x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))

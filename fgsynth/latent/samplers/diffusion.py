"""Diffusion in feature space, with feedback guidance: FG's feedback in LS's space."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor

from fgsynth.guidance.criteria import Criterion
from fgsynth.guidance.feedback import Classifier, Guidance, GuidedModel, guide
from fgsynth.guidance.samplers import ddim
from fgsynth.guidance.schedule import Predict, Schedule, model_function
from fgsynth.latent.checks import ClassError
from fgsynth.latent.samplers.base import LatentSampler
from fgsynth.latent.samplers.denoiser import contraction, residuals, scheduler, train_denoiser
from fgsynth.latent.samplers.noise import CHUNK, cut, normal, uniform
from fgsynth.latent.shrinkage import MeanPosterior, Whitening, shrunk_means


@dataclass(frozen=True)
class Feedback:
    """Feedback in feature space: a criterion of a classifier of features, and how strongly (FG 3.1)."""

    criterion: Criterion
    classifier: Classifier
    guidance: Guidance = field(default_factory=Guidance)


def feature_classifier(logits: Callable[[Tensor], Tensor]) -> Classifier:
    """Make a probe a classifier of guidance: its logits, and the feature itself as embedding.

    logits: differentiable, features (n, k) -> (n, c), such as a probe's `logits`.
    """
    return lambda x: (logits(x), x)


class FeatureDiffusion(LatentSampler):
    """Latent diffusion in feature space: a class-conditional diffusion of what varies within classes.

    The sampler of LS is not known: this one is our choice. feature = class mean + residual. Residuals
    (feature minus its class's mean) are whitened by PCA; a small network denoises the leading `components`
    of them (DDPM, v-prediction), the others are normal with their own variance. The untrained network is the
    normal distribution with the pooled within-class covariance, training learns what departs from it. Classes
    share the network: a synthetic row of class y is denoised as of its class with probability
    a = (n_y - 1) / (n_y - 1 + strength) and as of any class otherwise, so that a class of few rows borrows
    the residuals of all. Means are shrunk (`shrunk_means`), and each row draws one from its posterior.

    updates, rate: of training, 256 rows each, and the learning rate of AdamW; width, components: of the
    network, and whitened components that it denoises; n_steps: of DDIM; feedback: guides sampling, see
    `guided_by`; seed: of the training; strength: of the borrowing, 0 borrows nothing.

    `fit` raises UserError where no class has two features, where none varies, or if training diverges;
    `sample` for a class that the feedback's classifier does not have, and a gradient that is not finite.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "updates": [Interval(Integral, 0, None, closed="left")],
        **{key: [Interval(Integral, 1, None, closed="left")] for key in ("width", "n_steps", "components")},
        "feedback": [Feedback, None],
        "seed": [Integral],
        "strength": [Interval(Real, 0, None, closed="both")],
        "rate": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        updates: int = 1000,
        width: int = 128,
        n_steps: int = 30,
        feedback: Feedback | None = None,
        seed: int = 0,
        *,
        components: int = 64,
        strength: float = 20.0,
        rate: float = 2e-3,
    ) -> None:
        self.updates, self.width, self.n_steps = updates, width, n_steps
        self.feedback, self.seed = feedback, seed
        self.components, self.strength, self.rate = components, strength, rate

    def _fit(self, groups: dict[int, Tensor]) -> dict[int, MeanPosterior]:
        self._schedule = Schedule.from_scheduler(scheduler(), self.n_steps)
        whitening = Whitening.fit(groups)
        residual, y = residuals(groups)
        denoiser = train_denoiser(
            residual @ whitening.forward[:, : self.components], y, max(groups) + 1,
            updates=self.updates, width=self.width, rate=self.rate, seed=self.seed,
        )  # fmt: skip
        self._networks = whitening, denoiser
        return shrunk_means(groups, whitening)

    def guided_by(self, feedback: Feedback | None) -> Self:
        """The same fitted sampler under another feedback, or none; no training, and the same noise."""
        other = copy(self)
        other.feedback = feedback
        return other

    def _rows(self, y: int, start: int, stop: int, seed: int) -> Tensor:
        # In whole chunks of 128, so that a row is the same to the last bit in any range.
        return cut(lambda j: self._chunk(y, j, seed), start, stop)

    def _chunk(self, y: int, j: int, seed: int) -> Tensor:
        """Rows 128 j to 128 (j + 1) of class `y`."""
        (whitening, denoiser), m = self._networks, self.components
        here, back, own = (seed, y, j * CHUNK, (j + 1) * CHUNK), whitening.back, self._classes[y]
        noise, for_mean = normal("feature diffusion", *here, 2 * len(back)).chunk(2, 1)
        fixed = (own.mean + own.spread * for_mean) @ back + noise[:, m:] @ back[m:]
        u, free = uniform("feature diffusion class", *here, 1)[:, 0], own.n - 1
        condition = torch.where(u * (free + self.strength) < free, y, denoiser.n_classes)

        def network(z: Tensor, t: float) -> Tensor:
            return denoiser(z, torch.full((CHUNK,), t), condition)

        def decode(z: Tensor) -> Tensor:
            return fixed + z @ back[:m]

        predict = model_function(network, self._schedule, "v_prediction")
        z = noise[:, :m] / contraction(self._schedule)
        if self.feedback is None:
            return decode(ddim(predict, z, self._schedule))
        guided = _guided(self.feedback, predict, decode, y, self._schedule, fixed[:1])
        x = decode(ddim(guided, z, self._schedule))
        if guided.non_finite.any():
            raise ClassError(
                y, "The feedback's gradient is not finite at a feature of class {}: check the weights of its "
                "classifier, or lower its scale.",
            )  # fmt: skip
        return x


def _guided(
    feedback: Feedback,
    predict: Predict,
    decode: Callable[[Tensor], Tensor],
    y: int,
    schedule: Schedule,
    example: Tensor,
) -> GuidedModel:
    """A chunk's model function under feedback, for a classifier that has class `y`."""
    with torch.no_grad():
        n_classes = feedback.classifier(example)[0].shape[1]
    if y >= n_classes:
        raise ClassError(
            y, f"The feedback's classifier has {n_classes} classes, there is no class {{}} among them: guide "
            "with a classifier of the features' own classes.",
        )  # fmt: skip
    label = torch.full((CHUNK,), y)
    return guide(predict, feedback.classifier, feedback.criterion, label, schedule, feedback.guidance, decode)

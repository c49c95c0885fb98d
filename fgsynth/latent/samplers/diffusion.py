"""Diffusion in feature space, with feedback guidance: FG's feedback in LS's space."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from fgsynth.guidance.criteria import Criterion
from fgsynth.guidance.feedback import Classifier, Guidance, GuidedModel, guide
from fgsynth.guidance.samplers import ddim
from fgsynth.guidance.schedule import Predict, Schedule, model_function
from fgsynth.latent.samplers.base import LatentSampler
from fgsynth.latent.samplers.denoiser import (
    Denoiser,
    Whitening,
    contraction,
    residuals,
    scheduler,
    train_denoiser,
)
from fgsynth.latent.samplers.noise import CHUNK, cut, normal, uniform
from fgsynth.utils.errors import UserError


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


@dataclass(frozen=True)
class MeanPosterior:
    """What n rows tell of a class mean: normal along whitened components, with mean and spread (k,) each."""

    mean: Tensor
    spread: Tensor
    n: int


def shrunk_means(groups: dict[int, Tensor], whitening: Whitening) -> dict[int, MeanPosterior]:
    """Empirical-Bayes class means in whitened space, by class (Efron and Morris 1973).

    groups: features (n_y, k) by class. The mean m_y of a class's rows is off by a variance of 1 / n_y along
    every whitened component. With true means normal around their average g with variance tau_j^2 along
    component j, estimated from the classes, the true mean is normal around g + f (m_y - g) with variance
    f / n_y, f = tau_j^2 / (tau_j^2 + 1 / n_y): the fewer rows a class has, the more it is shrunk.
    """
    means = torch.stack([x.mean(0, dtype=torch.double) for x in groups.values()]) @ whitening.forward.double()
    counts = [len(x) for x in groups.values()]
    error = 1 / torch.tensor(counts, dtype=torch.double)[:, None]
    centre = means.mean(0)
    between = (means - centre).square().sum(0) / max(len(groups) - 1, 1)
    tau = (between - error.mean()).clamp(min=0)
    # One class alone tells nothing of where others lie.
    f = tau / (tau + error) if len(groups) > 1 else torch.ones_like(means)
    parts = zip(groups, centre + f * (means - centre), (f * error).sqrt(), counts, strict=True)
    return {y: MeanPosterior(mean.float(), spread.float(), n) for y, mean, spread, n in parts}


class FeatureDiffusion(LatentSampler):
    """Latent diffusion in feature space: a class-conditional diffusion of what varies within classes.

    The sampler of LS is not known: this one is our choice. feature = class mean + residual. Residuals
    (feature minus its class's mean) are whitened by PCA; a small network denoises the leading `components`
    of them (DDPM, v-prediction), the others are normal with their own variance. The untrained network is the
    normal distribution with the pooled within-class covariance, training learns what departs from it. Classes
    share the network: a synthetic row of class y is denoised as of its class with probability
    a = (n_y - 1) / (n_y - 1 + strength) and as of any class otherwise, so that a class of few rows borrows
    the residuals of all. Means are shrunk (`shrunk_means`), and each row draws one from its posterior.

    Parameters
    ----------
    updates, rate : int, float
        Updates of training, 256 rows each, and the learning rate of AdamW.
    width, components : int
        Of the network, and whitened components that it denoises.
    n_steps : int
        Of DDIM.
    feedback : Feedback, optional
        Guides sampling, see `guided_by`.
    seed : int
        Of the training.
    strength : float
        Of the borrowing; 0 borrows nothing.

    Raises
    ------
    UserError
        For parameters out of range; by `fit` where no class has two features, where none varies, or if
        training diverges; by `sample` for a class that the feedback's classifier does not have, and for a
        feedback whose gradient is not finite.
    """

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
        if updates < 0 or min(width, components) < 1:
            raise UserError(
                f"updates {updates}, width {width}, components {components}: need updates >= 0 and "
                "the others at least 1."
            )
        if not strength >= 0:
            raise UserError(f"Strength {strength}: give 0 (borrow nothing) or more.")
        self.updates, self.width, self.n_steps = updates, width, n_steps
        self.feedback, self.seed = feedback, seed
        self.components, self.strength, self.rate = components, strength, rate
        self._schedule = Schedule.from_scheduler(scheduler(), n_steps)
        self._networks: tuple[Whitening, Denoiser] | None = None

    def _fit(self, groups: dict[int, Tensor]) -> dict[int, MeanPosterior]:
        whitening = Whitening.fit(groups)
        residual, y = residuals(groups)
        denoiser = train_denoiser(
            residual @ whitening.forward[:, : self.components],
            y,
            max(groups) + 1,
            updates=self.updates,
            width=self.width,
            rate=self.rate,
            seed=self.seed,
        )
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
        assert self._networks is not None
        (whitening, denoiser), m = self._networks, self.components
        here, back, own = (seed, y, j * CHUNK, (j + 1) * CHUNK), whitening.back, self._classes[y]
        noise, for_mean = normal("feature diffusion", *here, 2 * len(back)).chunk(2, 1)
        fixed = (own.mean + own.spread * for_mean) @ back + noise[:, m:] @ back[m:]
        u, free = uniform("feature diffusion class", *here, 1)[:, 0], own.n - 1
        condition = torch.where(u * (free + self.strength) < free, y, denoiser.n_classes)

        def network(z: Tensor, t: int) -> Tensor:
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
            raise UserError(
                f"The feedback's gradient is not finite at a feature of class {y}: check the weights of its "
                "classifier, or lower its scale."
            )
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
        raise UserError(
            f"The feedback's classifier has {n_classes} classes, there is no class {y} among them: guide "
            "with a classifier of the features' own classes."
        )
    label = torch.full((CHUNK,), y)
    return guide(predict, feedback.classifier, feedback.criterion, label, schedule, feedback.guidance, decode)

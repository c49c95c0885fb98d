"""Gaussian mixtures per class as latent samplers."""

import warnings
from dataclasses import dataclass
from typing import Literal, Self

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch import Tensor

from fgsynth.latent.checks import by_class, check_features
from fgsynth.latent.covariance import variance, with_spread
from fgsynth.latent.samplers.base import known_class, sample_classes
from fgsynth.latent.samplers.noise import CHUNK, chunk_generator, cut
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import stable_seed

Covariance = Literal["diag", "spherical"]
ITERATIONS = 30
"""Updates of expectation maximisation; in hundreds of dimensions responsibilities settle within a few."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of m normal distributions: weights (m,), mean and standard deviation (m, k), float32."""

    weights: Tensor
    mean: Tensor
    deviation: Tensor


class GaussianMixture:
    """Gaussian-mixture latent sampler: a mixture of normal distributions with diagonal covariance per class.

    By expectation maximisation (scikit-learn), `components` at most and no more than one per `rows` rows
    of the class; of these numbers the one with the lowest Bayesian information criterion. A class too
    small for two components is one normal distribution with variance a s_y^2 + (1 - a) s_pooled^2,
    a = n_y / (n_y + strength), as the class Gaussian shrinks its covariance. covariance: "diag" (per
    dimension) or "spherical" (their mean).
    """

    def __init__(
        self,
        components: int = 3,
        covariance: Covariance = "diag",
        rows: int = 20,
        strength: float = 20.0,
        seed: int = 0,
    ) -> None:
        if covariance not in ("diag", "spherical"):
            raise UserError(f"Unknown covariance '{covariance}': choose 'diag' or 'spherical'.")
        if components < 1 or rows < 2 or not strength >= 0:
            raise UserError(
                f"components {components}, rows {rows}, strength {strength}: need components >= 1, "
                "rows >= 2 and strength >= 0."
            )
        self.components = components
        self.covariance: Covariance = covariance
        self.rows = rows
        self.strength = strength
        self.seed = seed
        self._classes: dict[int, Mixture] = {}
        self._k = 0

    def fit(self, features: Tensor, label: Tensor) -> Self:
        """Features (n, k), label (n,). Raises UserError for a class of one row with no variance to borrow."""
        check_features(features, label)
        groups, k = by_class(features, label), features.shape[1]
        spread = with_spread(groups)
        shared = variance(spread, k) if spread and self.strength else None
        classes = {}
        for y, x in groups.items():
            if shared is None and len(x) < 2:
                raise UserError(
                    f"Class {y} has 1 feature, no variance of its own and none to borrow: "
                    "set strength above 0 and give a class with two features or more."
                )
            most = min(self.components, len(x) // self.rows)
            # Rows that are all the same have nothing to divide.
            divide = most > 1 and bool((x != x[0]).any())
            classes[y] = self._mixture(x, y, most) if divide else self._single(x, shared)
        self._classes, self._k = classes, k
        return self

    def _single(self, x: Tensor, shared: Tensor | None) -> Mixture:
        """One component, its variance shrunk towards the `shared` (k,) one."""
        s = variance([x], x.shape[1])
        if shared is not None:
            a = len(x) / (len(x) + self.strength)
            s = a * s + (1 - a) * shared
        if self.covariance == "spherical":
            s = s.mean().expand_as(s)
        return Mixture(torch.ones(1), x.mean(0, dtype=torch.double)[None].float(), s.sqrt()[None].float())

    def _mixture(self, x: Tensor, y: int, most: int) -> Mixture:
        """The mixture with 1 to `most` components that has the lowest BIC."""
        values = x.double().numpy()
        # A floor for the variances, of no weight beside the class's own: a component must not collapse.
        floor = 1e-6 * float(values.var(0).mean())
        fits = []
        for m in range(1, most + 1):
            # scikit-learn takes seeds of 32 bits.
            random_state = stable_seed("gaussian mixture", self.seed, y, m) % 2**32
            mixture = SklearnMixture(
                m,
                covariance_type=self.covariance,
                reg_covar=floor,
                max_iter=ITERATIONS,
                init_params="k-means++",
                random_state=random_state,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                fits.append(mixture.fit(values))
        best = min(fits, key=lambda fit: float(fit.bic(values)))
        mean = torch.from_numpy(best.means_).float()
        deviation = torch.from_numpy(best.covariances_).sqrt().float()
        deviation = deviation.reshape(len(mean), -1).expand_as(mean)
        return Mixture(torch.from_numpy(best.weights_).float(), mean, deviation)

    def sample(self, y: int, n: int, seed: int, *, start: int = 0) -> Tensor:
        """Rows start..start + n of class `y`, (n, k). Raises UserError for a class that was not fitted."""
        known_class(y, self._classes)
        d = self._classes[y]

        def chunk(j: int) -> Tensor:
            g = chunk_generator("gaussian mixture", seed, y, j)
            m = torch.multinomial(d.weights, CHUNK, replacement=True, generator=g)
            return torch.randn(CHUNK, self._k, generator=g).mul_(d.deviation[m]).add_(d.mean[m])

        return cut(chunk, start, start + n)

    def sample_all(self, counts: Tensor, seed: int, *, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """counts[y] rows of every class: features, labels, sorted by class."""
        return sample_classes(self, self._k, counts, seed, start)

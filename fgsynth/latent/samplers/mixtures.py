"""Gaussian mixtures per class as latent samplers."""

import warnings
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.utils._param_validation import Interval
from torch import Tensor

from fgsynth.latent.checks import ClassError
from fgsynth.latent.covariance import variance, with_spread
from fgsynth.latent.samplers.base import LatentSampler
from fgsynth.latent.samplers.noise import CHUNK, chunk_generator, cut
from fgsynth.utils.seeds import stable_seed

ITERATIONS = 30
"""Updates of expectation maximisation; in hundreds of dimensions responsibilities settle within a few."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of m normal distributions: weights (m,), mean and standard deviation (m, k), float32."""

    weights: Tensor
    mean: Tensor
    deviation: Tensor


class GaussianMixture(LatentSampler):
    """Gaussian mixture per class, with diagonal covariances, by expectation maximisation (scikit-learn).

    Of the numbers of components allowed, the one with the lowest Bayesian information criterion. A class too
    small for two components is one normal distribution with variance a s_y^2 + (1 - a) s_pooled^2, a = n_y /
    (n_y + strength), as the class Gaussian shrinks its covariance. components: most of a class, each of which
    needs as many `rows` of it; seed: of the starts.

    `fit` raises UserError for a class of one row with no variance to borrow.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "components": [Interval(Integral, 1, None, closed="left")],
        "rows": [Interval(Integral, 2, None, closed="left")],
        "strength": [Interval(Real, 0, None, closed="both")],
        "seed": [Integral],
    }

    def __init__(self, components: int = 3, rows: int = 20, strength: float = 20.0, seed: int = 0) -> None:
        self.components = components
        self.rows = rows
        self.strength = strength
        self.seed = seed

    def _fit(self, groups: dict[int, Tensor]) -> dict[int, Mixture]:
        spread = with_spread(groups)
        shared = variance(spread, spread[0].shape[1]) if spread and self.strength else None
        classes = {}
        for y, x in groups.items():
            if shared is None and len(x) < 2:
                raise ClassError(
                    y, "Class {} has 1 feature, no variance of its own and none to borrow: "
                    "set strength above 0 and give a class with two features or more.",
                )  # fmt: skip
            most = min(self.components, len(x) // self.rows)
            # Rows that are all the same have nothing to divide.
            divide = most > 1 and bool((x != x[0]).any())
            classes[y] = self._mixture(x, y, most) if divide else self._single(x, shared)
        return classes

    def _single(self, x: Tensor, shared: Tensor | None) -> Mixture:
        """One component, its variance shrunk towards the `shared` (k,) one."""
        s = variance([x], x.shape[1])
        if shared is not None:
            a = len(x) / (len(x) + self.strength)
            s = a * s + (1 - a) * shared
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
                m, covariance_type="diag", reg_covar=floor, max_iter=ITERATIONS, init_params="k-means++",
                random_state=random_state,
            )  # fmt: skip
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                fits.append(mixture.fit(values))
        best = min(fits, key=lambda fit: float(fit.bic(values)))
        weights, mean, square = (torch.from_numpy(x) for x in (best.weights_, best.means_, best.covariances_))
        return Mixture(weights.float(), mean.float(), square.sqrt().float())

    def _rows(self, y: int, start: int, stop: int, seed: int) -> Tensor:
        d: Mixture = self._classes[y]

        def chunk(j: int) -> Tensor:
            g = chunk_generator("gaussian mixture", seed, y, j)
            m = torch.multinomial(d.weights, CHUNK, replacement=True, generator=g)
            return torch.randn(CHUNK, self._k, generator=g).mul_(d.deviation[m]).add_(d.mean[m])

        return cut(chunk, start, stop)

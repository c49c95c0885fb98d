"""Latent sampling for scikit-learn and imbalanced-learn: a classifier of features, and an over-sampler."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from imblearn.over_sampling.base import BaseOverSampler
from imblearn.utils import check_sampling_strategy
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from fgsynth.latent.probe.linear import SCALE, TOLERANCE, fit_probe
from fgsynth.latent.probe.objective import Head
from fgsynth.latent.samplers.base import LatentSampler
from fgsynth.latent.samplers.registry import SAMPLERS
from fgsynth.train.losses import prior_counts
from fgsynth.utils.errors import UserError, UserValueError

Array = NDArray[Any]
Strategy = str | float | Mapping[Any, int] | Callable[[Array], Mapping[Any, int]]
"""imbalanced-learn's sampling_strategy for over-sampling: which classes are filled, and how far."""


@contextmanager
def _value_errors() -> Iterator[None]:
    """Raise a UserError as the ValueError that scikit-learn's tools expect."""
    try:
        yield
    except UserError as error:
        raise UserValueError(str(error)) from error


def _named(sampler: str | LatentSampler) -> LatentSampler:
    """An unfitted sampler: by its name in SAMPLERS, or a copy. Raises UserError for an unknown name."""
    if not isinstance(sampler, str):
        return deepcopy(sampler)
    if sampler not in SAMPLERS:
        raise UserError(f"Unknown sampler '{sampler}': choose one of {', '.join(SAMPLERS)}.")
    return SAMPLERS[sampler]()


def _synthetic(
    features: Tensor,
    label: Tensor,
    wanted: Mapping[Any, int],
    classes: Array,
    sampler: str | LatentSampler,
    random_state: Any,
) -> tuple[Tensor, Tensor]:
    """wanted[y] synthetic features of every class that it names, (m, k), with indices in `classes`, (m,)."""
    counts = torch.tensor([int(wanted.get(y, 0)) for y in classes.tolist()])
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    return _named(sampler).fit(features, label).sample_all(counts, seed)


class LatentClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Latent sampling and a linear probe (LS) as a scikit-learn classifier.

    Parameters
    ----------
    sampler : str, LatentSampler or None
        A name in `samplers.registry.SAMPLERS`, a sampler, or None for no synthetic features.
    sampling_strategy : str, float, dict or callable
        imbalanced-learn's, for over-sampling; "auto" fills every class to the largest.
    balanced : float
        Weight of balanced softmax, 0 to 1.
    prior : "real" or "real+synthetic"
        n_c of balanced softmax and of `tau`: of the real features, or of the mixture trained on, whose prior
        is uniform after a full filling.
    tau : float
        Of post-hoc logit adjustment.
    weight_decay : float
        Of the linear head.
    head : "linear" or "cosine"
        Of the probe.
    scale : float
        Of the cosine head.
    iterations, tolerance : int, float
        Of the solver, see `probe.solver.minimise`.
    random_state : int, RandomState or None
        Seed of the synthetic features.

    Attributes
    ----------
    classes_ : array
        Labels, (c,).
    probe_ : Probe
        The fitted probe.
    n_synthetic_ : array
        Synthetic features per class, (c,).
    n_features_in_ : int
        k.
    """

    def __init__(
        self,
        sampler: str | LatentSampler | None = "class gaussian",
        *,
        sampling_strategy: Strategy = "auto",
        balanced: float = 1.0,
        prior: Literal["real", "real+synthetic"] = "real+synthetic",
        tau: float = 0.0,
        weight_decay: float = 1e-4,
        head: Head = "linear",
        scale: float = SCALE,
        iterations: int = 200,
        tolerance: float = TOLERANCE,
        random_state: Any = 0,
    ) -> None:
        self.sampler = sampler
        self.sampling_strategy = sampling_strategy
        self.balanced = balanced
        self.prior = prior
        self.tau = tau
        self.weight_decay = weight_decay
        self.head = head
        self.scale = scale
        self.iterations = iterations
        self.tolerance = tolerance
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit on features X (n, k) and labels y (n,) of any type. Raises ValueError for what does not fit.

        Warns as scikit-learn does (ConvergenceWarning) where `iterations` did not suffice.
        """
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        # Checked without a sampler too: it refuses a single class.
        wanted = check_sampling_strategy(self.sampling_strategy, y, "over-sampling")
        features, label = torch.tensor(X), torch.tensor(index)
        real = label.bincount()
        with _value_errors():
            if self.sampler is not None:
                new = _synthetic(features, label, wanted, self.classes_, self.sampler, self.random_state)
                features, label = torch.cat([features, new[0]]), torch.cat([label, new[1]])
            self.n_synthetic_ = (label.bincount() - real).numpy()
            if self.prior not in ("real", "real+synthetic"):
                raise UserError(f"Unknown prior '{self.prior}': choose 'real' or 'real+synthetic'.")
            counts = prior_counts(self.prior, real, label.bincount() - real)
            probe = fit_probe(
                features, label, counts, weight_decay=0.0 if self.head == "cosine" else self.weight_decay,
                balanced=self.balanced, head=self.head, scale=self.scale, iterations=self.iterations,
                tolerance=self.tolerance,
            )  # fmt: skip
            self.probe_ = probe.adjusted(counts, self.tau)
        if not self.probe_.converged:
            message = f"The probe did not converge in {self.iterations} iterations: raise iterations."
            warnings.warn(message, ConvergenceWarning, stacklevel=2)
        return self

    def _logits(self, X: ArrayLike) -> Tensor:
        check_is_fitted(self)
        features = torch.tensor(validate_data(self, X, dtype=np.float32, reset=False))
        # In double precision, as single rounds by how many rows are multiplied at once.
        weight, bias = self.probe_.weight.double(), self.probe_.bias.double()
        return replace(self.probe_, weight=weight, bias=bias).logits(features.double())

    def decision_function(self, X: ArrayLike) -> Array:
        """Logits (n, c) of features X (n, k); of two classes, that of the second against the first, (n,)."""
        logits = self._logits(X).numpy()
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: ArrayLike) -> Array:
        """Softmax of the logits, (n, c)."""
        return self._logits(X).softmax(1).numpy()

    def predict(self, X: ArrayLike) -> Array:
        """Predicted labels, (n,), of the type that was given."""
        winner = self._logits(X).argmax(1).numpy()
        return self.classes_[winner]


class LatentOverSampler(BaseOverSampler):  # type: ignore[misc]
    """Latent sampling as an imbalanced-learn over-sampler: real features, then synthetic ones by class.

    `fit_resample` raises ValueError for what cannot be fitted, sparse features too.

    Parameters
    ----------
    sampler : str or LatentSampler
        A name in `samplers.registry.SAMPLERS`, or a sampler.
    sampling_strategy, random_state
        As in `LatentClassifier`.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseOverSampler._parameter_constraints,
        "sampler": "no_validation",
    }

    def __init__(
        self,
        sampler: str | LatentSampler = "class gaussian",
        *,
        sampling_strategy: Strategy = "auto",
        random_state: Any = 0,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.sampler = sampler
        self.random_state = random_state

    def _check_X_y(self, X: Any, y: Any) -> tuple[Array, Array, bool]:
        checked: tuple[Array, Array, bool] = super()._check_X_y(X, y, accept_sparse=False)
        return checked

    def _fit_resample(self, X: Array, y: Array) -> tuple[Array, Array]:
        classes, index = np.unique(y, return_inverse=True)
        with _value_errors():
            features = torch.tensor(X, dtype=torch.float32)
            new, label = _synthetic(
                features,
                torch.tensor(index),
                self.sampling_strategy_,
                classes,
                self.sampler,
                self.random_state,
            )
        return np.vstack([X, new.numpy().astype(X.dtype)]), np.concatenate([y, classes[label.numpy()]])

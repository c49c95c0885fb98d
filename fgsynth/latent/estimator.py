"""Latent sampling for scikit-learn and imbalanced-learn: a classifier of features, and an over-sampler."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
import torch
from imblearn.over_sampling.base import BaseOverSampler
from imblearn.utils import check_sampling_strategy
from numpy.typing import ArrayLike
from pandas.api.types import is_float_dtype, is_numeric_dtype
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from fgsynth.latent.checks import ParameterError, Validated
from fgsynth.latent.probe.linear import ITERATIONS, TOLERANCE, Probe, fit_probe
from fgsynth.latent.rows import Array, Rows, own_labels, scaling, seed_of, wanted_of
from fgsynth.latent.samplers.base import LatentSampler
from fgsynth.latent.samplers.registry import SAMPLERS

Strategy = str | float | Mapping[Any, int] | Callable[[Array], Mapping[Any, int]]
"""imbalanced-learn's sampling_strategy for over-sampling: which classes are filled, and how far."""
SHRUNK = "shrunk means, tied covariance"
TAU_REAL, TAU_FILLED = 1.0, 0.5
"""Logit adjustment of `tau="auto"`: real features alone need all of it (balanced softmax). Filled classes
need half where the probe fits its features without error, and none where classes overlap: this less the
objective, as measured on digits, on the mini world's features and on those of photographs."""
SAMPLER: list[Any] = [StrOptions(set(SAMPLERS)), LatentSampler]
PROBE: dict[str, list[Any]] = {
    "sampling_strategy": BaseOverSampler._parameter_constraints["sampling_strategy"],
    "scale_features": ["boolean"],
    "iterations": [Interval(Integral, 1, None, closed="left")],
    "tolerance": [Interval(Real, 0, None, closed="neither")],
    "random_state": ["random_state"],
}


class FeatureClassifier(ClassifierMixin, Validated):  # type: ignore[misc]
    """What the two classifiers share: scaled rows, and the predictions of a fitted probe."""

    def _prepare(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Rows:
        """Check and scale what `fit` was given; a row of weight 0 is left out."""
        rows, label = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(label)
        share = _check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
        rows, label, share = (part[share > 0] for part in (rows, label, share))
        self.classes_, index = np.unique(label, return_inverse=True)
        # Checked without a sampler too: it refuses a single class.
        strategy = check_sampling_strategy(self.sampling_strategy, label, "over-sampling")
        wanted = wanted_of(strategy, self.classes_)
        none: tuple[Array, float] = np.zeros(rows.shape[1]), 1.0
        self.center_, self.scale_ = scaling(rows, share) if self.scale_features else none
        features = torch.tensor((rows - self.center_) / self.scale_, dtype=torch.float32)
        return Rows(features, torch.tensor(index), torch.tensor(share), wanted)

    def _keep(self, rows: Rows, real: Rows, probe: Probe, tau: float) -> None:
        """Keep a probe with its logits adjusted by the prior of the real rows."""
        classes = len(self.classes_)
        self.n_synthetic_ = (rows.label.bincount() - real.label.bincount()).numpy()
        self.tau_ = tau
        self.probe_ = probe.adjusted(real.label.bincount(real.share, classes), tau)
        self.n_iter_ = probe.iterations
        if not probe.converged:
            message = (
                f"The probe did not converge in {probe.iterations} iterations: raise iterations, "
                "weight_decay or tolerance."
            )
            warnings.warn(message, ConvergenceWarning, stacklevel=4)

    def _folded(self) -> tuple[Array, Array]:
        """Weight (k, c) and bias (c,) in the features as they were given."""
        check_is_fitted(self)
        weight = self.probe_.weight.double().numpy() / self.scale_
        return weight, self.probe_.bias.double().numpy() - self.center_ @ weight

    @property
    def coef_(self) -> Array:
        """Coefficients of the features as they were given, (c, k); of two classes (1, k)."""
        weight = self._folded()[0].T
        return weight[1:] - weight[:1] if len(weight) == 2 else weight

    @property
    def intercept_(self) -> Array:
        """(c,); of two classes (1,)."""
        bias = self._folded()[1]
        return bias[1:] - bias[:1] if len(bias) == 2 else bias

    def _logits(self, X: ArrayLike) -> Tensor:
        """Logits (n, c), in double precision as single rounds by how many rows are multiplied at once."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        rows = torch.from_numpy((X - self.center_) / self.scale_).double()
        weight, bias = self.probe_.weight.double(), self.probe_.bias.double()
        return replace(self.probe_, weight=weight, bias=bias).logits(rows)

    def decision_function(self, X: ArrayLike) -> Array:
        """Logits (n, c) of features X (n, k); of two classes, that of the second against the first, (n,)."""
        logits = self._logits(X).numpy()
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_log_proba(self, X: ArrayLike) -> Array:
        """Logarithm of the softmax of the logits, (n, c)."""
        return self._logits(X).log_softmax(1).numpy()

    def predict_proba(self, X: ArrayLike) -> Array:
        """Softmax of the logits, (n, c)."""
        return self._logits(X).softmax(1).numpy()

    def predict(self, X: ArrayLike) -> Array:
        """Predicted labels, (n,), of the type that was given."""
        winner = self._logits(X).argmax(1).numpy()
        return self.classes_[winner]


class LatentClassifier(FeatureClassifier):
    """Latent sampling and a linear probe (LS) as a scikit-learn classifier.

    Parameters
    ----------
    sampler : str, LatentSampler or None
        A name in `samplers.registry.SAMPLERS`, a sampler, or None for no synthetic features.
    sampling_strategy : str, float, dict or callable
        imbalanced-learn's, for over-sampling; "auto" fills every class to the largest.
    tau : float or "auto"
        Of post-hoc logit adjustment by the prior of the real features; without synthetic features 1 is
        balanced softmax. "auto" is 1 without a sampler, and with one 0.5 less the objective (in nats) that
        the probe reached, at least 0.
    weight_decay : float
        Of the probe.
    scale_features : bool
        Center features and divide them all by one number, to a mean squared length of 1, so that weight decay
        means the same on any scale and in any dimension. Where features have units of their own, put a
        `StandardScaler` before.
    class_weight : dict, "balanced" or None
        scikit-learn's, of real and synthetic features alike.
    iterations, tolerance : int, float
        Of the solver, see `probe.solver.minimise`.
    random_state : int, RandomState or None
        Seed of the synthetic features.

    Attributes
    ----------
    classes_ : array
        Labels, (c,).
    coef_, intercept_ : array
        For features as they were given: (c, k) and (c,), of two classes (1, k) and (1,).
    probe_ : Probe
        The fitted probe, on scaled features.
    tau_, center_, scale_ : float, array, float
        The logit adjustment, and by which features are scaled.
    n_synthetic_ : array
        Synthetic features per class, (c,).
    n_iter_, n_features_in_ : int
        Iterations of the solver, and k.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **PROBE,
        "sampler": [*SAMPLER, None],
        "tau": [StrOptions({"auto"}), Interval(Real, None, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "class_weight": [StrOptions({"balanced"}), dict, None],
    }

    def _validate_params(self) -> None:
        super()._validate_params()
        for label, weight in self.class_weight.items() if isinstance(self.class_weight, dict) else ():
            if not (isinstance(weight, Real) and 0 < float(weight) < np.inf):
                raise ParameterError(
                    f"The class_weight of class {label} is {weight}: give a number above 0, or leave its "
                    "rows out."
                )

    def __init__(
        self,
        sampler: str | LatentSampler | None = SHRUNK,
        *,
        sampling_strategy: Strategy = "auto",
        tau: float | Literal["auto"] = "auto",
        weight_decay: float = 1e-5,
        scale_features: bool = True,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        iterations: int = ITERATIONS,
        tolerance: float = TOLERANCE,
        random_state: Any = None,
    ) -> None:
        self.sampler = sampler
        self.sampling_strategy = sampling_strategy
        self.tau = tau
        self.weight_decay = weight_decay
        self.scale_features = scale_features
        self.class_weight = class_weight
        self.iterations = iterations
        self.tolerance = tolerance
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit on features X (n, k) and labels y (n,) of any type. Raises ValueError for what does not fit.

        sample_weight (n,): weights of the real features in the probe and in the prior; the sampler counts
        every feature of positive weight as one. Warns (ConvergenceWarning) where it did not converge.
        """
        real = self._prepare(X, y, sample_weight)
        with own_labels(self.classes_):
            rows = real.filled(self.sampler, seed_of(self.random_state))
            weights = self.class_weight if isinstance(self.class_weight, dict) else {}
            if unknown := sorted(map(str, weights.keys() - set(self.classes_.tolist()))):
                raise ParameterError(f"class_weight names {', '.join(unknown)}, of which there is no row.")
            by_class = compute_sample_weight(self.class_weight, self.classes_[rows.label.numpy()])
            probe = fit_probe(
                rows.features, rows.label, len(self.classes_), weight_decay=self.weight_decay,
                iterations=self.iterations, tolerance=self.tolerance,
                share=rows.share * torch.tensor(by_class), real=len(real.label),
            )  # fmt: skip
        auto = TAU_REAL if self.sampler is None else max(0.0, TAU_FILLED - probe.objective)
        self._keep(rows, real, probe, auto if self.tau == "auto" else float(self.tau))
        return self


class LatentOverSampler(Validated, BaseOverSampler):  # type: ignore[misc]
    """Latent sampling as an imbalanced-learn over-sampler: real features, then synthetic ones by class.

    Features that are floats keep their type; whole numbers become floats, as what is drawn is between them.
    `fit_resample` raises ValueError for what cannot be fitted, sparse features too.

    Parameters
    ----------
    sampler : str or LatentSampler
        A name in `samplers.registry.SAMPLERS`, or a sampler.
    sampling_strategy, random_state
        As in `LatentClassifier`.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "sampling_strategy": PROBE["sampling_strategy"],
        "random_state": PROBE["random_state"],
        "sampler": SAMPLER,
    }

    def __init__(
        self,
        sampler: str | LatentSampler = SHRUNK,
        *,
        sampling_strategy: Strategy = "auto",
        random_state: Any = None,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.sampler = sampler
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        return tags

    def _check_X_y(self, X: Any, y: Any) -> tuple[Array, Array, bool]:
        checked: tuple[Array, Array, bool] = super()._check_X_y(X, y, accept_sparse=False)
        return checked

    def fit_resample(self, X: Any, y: Any, **params: Any) -> tuple[Any, Any]:
        """Features and labels with the synthetic ones after them, as arrays or as a frame and series."""
        if isinstance(X, pd.DataFrame):
            # Otherwise columns get their types back at the end, which would cut numbers off.
            whole = [
                name for name, kind in X.dtypes.items() if is_numeric_dtype(kind) and not is_float_dtype(kind)
            ]
            X = X.astype(dict.fromkeys(whole, np.float64))
        made: tuple[Any, Any] = super().fit_resample(X, y, **params)
        return made

    def _fit_resample(self, X: Array, y: Array) -> tuple[Array, Array]:
        X = X if np.issubdtype(X.dtype, np.floating) else X.astype(np.float64)
        classes, index = np.unique(y, return_inverse=True)
        center, scale = scaling(X)
        features = torch.tensor((X - center) / scale, dtype=torch.float32)
        label, share = torch.tensor(index), torch.ones(len(X), dtype=torch.double)
        wanted = wanted_of(self.sampling_strategy_, classes)
        with own_labels(classes):
            rows = Rows(features, label, share, wanted).filled(self.sampler, seed_of(self.random_state))
        new = rows.features[len(X) :].double().numpy() * scale + center
        return np.vstack([X, new.astype(X.dtype)]), np.concatenate([y, classes[rows.label[len(X) :].numpy()]])

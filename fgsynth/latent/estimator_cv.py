"""Latent sampling whose sampler, weight decay and logit adjustment are chosen by cross-validation."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval
from torch import Tensor

from fgsynth.latent.checks import ParameterError
from fgsynth.latent.estimator import PROBE, SHRUNK, FeatureClassifier, LatentClassifier, Strategy
from fgsynth.latent.probe.linear import ITERATIONS, TOLERANCE, fit_probe, path
from fgsynth.latent.rows import Rows, own_labels, seed_of
from fgsynth.latent.samplers.base import LatentSampler
from fgsynth.utils.errors import UserError, UserValueError


def stratified_folds(label: Tensor, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of every row, (n,), the rows of a class spread evenly; -1 for the row of a class of one.

    Every class of two rows or more keeps one to train on in every fold.
    """
    rng, fold, start = np.random.RandomState(seed), np.full(len(label), -1), 0
    for y in label.unique():
        mine = rng.permutation(np.flatnonzero(label == y))
        if len(mine) > 1:
            # On from where the class before ended, so that folds are of one size.
            fold[mine] = (start + np.arange(len(mine))) % folds
            start += len(mine)
    return fold


TAUS = (0.0, 0.5, 1.0)
"""Not above balanced softmax: folds have fewer rows of a rare class than there are, so that cross-validation
prefers too large a tau, which costs where classes have a handful."""


class LatentClassifierCV(FeatureClassifier):
    """`LatentClassifier` with sampler, weight decay and tau chosen by stratified cross-validation.

    By mean class accuracy of the held-out predictions of all folds together; of equals the first sampler,
    then the largest weight decay, then the first tau. One path of probes over the weight decays per fold and
    sampler, each from the one before, on which every tau is tried. The row of a class of one trains in every
    fold and is never held out, so that such a class has no part in the choice; a sampler that cannot be
    fitted in a fold is left out, with a warning. Features are scaled once, before the folds.

    Parameters
    ----------
    samplers : sequence
        Names in `samplers.registry.SAMPLERS`, samplers, or None for no synthetic features.
    weight_decays, taus : sequence of float
        Tried with every sampler; as in `LatentClassifier`.
    cv : int
        Folds.
    sampling_strategy, scale_features, iterations, tolerance, random_state
        As in `LatentClassifier`; `random_state` draws the folds too.

    Attributes
    ----------
    sampler_, weight_decay_, tau_ : object, float, float
        What was chosen.
    scores_ : array
        Mean class accuracies (samplers, weight decays from the largest, taus) in percent; nan where left out.
    classes_, coef_, intercept_, probe_, center_, scale_, n_synthetic_, n_iter_, n_features_in_
        As of `LatentClassifier`, fitted to all rows as chosen.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **PROBE,
        "samplers": ["array-like"],
        "weight_decays": ["array-like"],
        "taus": ["array-like"],
        "cv": [Interval(Integral, 2, None, closed="left")],
    }

    def __init__(
        self,
        samplers: Sequence[str | LatentSampler | None] = (None, SHRUNK),
        *,
        weight_decays: Sequence[float] = (1e-4, 3e-5, 1e-5, 3e-6),
        taus: Sequence[float] = TAUS,
        cv: int = 5,
        sampling_strategy: Strategy = "auto",
        scale_features: bool = True,
        iterations: int = ITERATIONS,
        tolerance: float = TOLERANCE,
        random_state: Any = None,
    ) -> None:
        self.samplers = samplers
        self.weight_decays = weight_decays
        self.taus = taus
        self.cv = cv
        self.sampling_strategy = sampling_strategy
        self.scale_features = scale_features
        self.iterations = iterations
        self.tolerance = tolerance
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Choose, then fit on features X (n, k) and labels y (n,) of any type.

        Raises ValueError for what does not fit, and where every class has one row: nothing to choose by.
        """
        decays = sorted(self.weight_decays, reverse=True)
        tried = list(product(self.samplers, decays, self.taus))
        if not tried:
            raise ParameterError("Give at least one sampler, one weight decay and one tau to choose from.")
        # Good enough for the classifier below.
        if "auto" in map(str, self.taus):
            raise ParameterError("The 'taus' of LatentClassifierCV hold 'auto': give numbers.")
        for sampler, decay, tau in tried:
            LatentClassifier(sampler, weight_decay=decay, tau=tau)._validate_params()
        real, seed = self._prepare(X, y), seed_of(self.random_state)
        with own_labels(self.classes_):
            self.scores_ = self._scores(real, decays, seed)
            # The first of equals.
            self.sampler_, self.weight_decay_, self.tau_ = tried[int(np.nanargmax(self.scores_))]
            rows = real.filled(self.sampler_, seed)
            probe = fit_probe(
                rows.features, rows.label, len(self.classes_), weight_decay=self.weight_decay_,
                iterations=self.iterations, tolerance=self.tolerance, real=len(real.label),
            )  # fmt: skip
        self._keep(rows, real, probe, self.tau_)
        return self

    def _scores(self, real: Rows, decays: Sequence[float], seed: int) -> NDArray[np.float64]:
        """Mean class accuracies of all settings, (samplers, weight decays, taus), in percent."""
        fold = stratified_folds(real.label, self.cv, seed)
        if (fold < 0).all():
            raise UserValueError(
                "Every class has one row, so that none can be held out: use LatentClassifier, or give more."
            )
        right = np.full((len(self.samplers), len(decays), len(self.taus), len(fold)), np.nan)
        unfit: set[int] = set()
        # Samplers within a fold, as they share its covariance.
        for f, i in product(range(self.cv), range(len(self.samplers))):
            held = torch.from_numpy(fold == f)
            try:
                if i not in unfit:
                    right[i, ..., held] = self._held_out(real, held, self.samplers[i], decays, seed)
            except UserError as error:
                if self.samplers[i] is None:
                    raise
                warnings.warn(f"Sampler {self.samplers[i]} is left out: {error}", UserWarning, stacklevel=4)
                unfit.add(i)
        right[list(unfit)] = np.nan
        classes = np.unique(real.label[fold >= 0])
        by_class = [right[..., real.label.numpy() == y].mean(-1) for y in classes]
        scores = 100 * np.mean(by_class, axis=0)
        if np.isnan(scores).all():
            raise UserValueError("No sampler can be fitted in every fold: add None to the samplers.")
        return scores

    def _held_out(
        self,
        real: Rows,
        held: Tensor,
        sampler: str | LatentSampler | None,
        decays: Sequence[float],
        seed: int,
    ) -> NDArray[np.bool_]:
        """Whether each held-out row is predicted right, (held-out rows, weight decays, taus)."""
        kept = replace(real, features=real.features[~held], label=real.label[~held], share=real.share[~held])
        rows, counts = kept.filled(sampler, seed), kept.label.bincount()
        probes = path(
            rows.features, rows.label, len(self.classes_), decays,
            iterations=self.iterations, tolerance=self.tolerance, real=len(kept.label),
        )  # fmt: skip
        x, y = real.features[held], real.label[held]
        right = [[probe.adjusted(counts, tau).predict(x) == y for tau in self.taus] for probe in probes]
        return np.moveaxis(np.array([[r.numpy() for r in row] for row in right]), -1, 0)

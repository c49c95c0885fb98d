"""Rows of features on their way from an estimator's `fit` to samplers and probe: scaled, filled, named."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils import check_random_state
from torch import Tensor

from fgsynth.latent.checks import ClassError, ParameterError
from fgsynth.latent.samplers.base import LatentSampler
from fgsynth.latent.samplers.registry import SAMPLERS
from fgsynth.utils.errors import UserError, UserValueError
from fgsynth.utils.parallel import memory

Array = NDArray[Any]


@dataclass(frozen=True)
class Rows:
    """Scaled features (n, k), class numbers (n,), weights (n,) float64; synthetic rows wanted per class."""

    features: Tensor
    label: Tensor
    share: Tensor
    wanted: Tensor

    def filled(self, sampler: str | LatentSampler | None, seed: int) -> "Rows":
        """The rows, and those that a sampler fitted on them draws, of the average weight of a row."""
        if sampler is None:
            return self
        made = SAMPLERS[sampler]() if isinstance(sampler, str) else clone(sampler)
        # Twice: as they are drawn, and joined to the real ones.
        size = 2 * int(self.wanted.sum()) * self.features.shape[1] * self.features.element_size()
        if size > (there := memory()):
            raise ParameterError(
                f"sampling_strategy asks for {int(self.wanted.sum()):,} synthetic features, "
                f"{size / 2**30:,.0f} GiB where this machine has {there / 2**30:,.0f}: ask for fewer."
            )
        new, label = made.fit(self.features, self.label).sample_all(self.wanted, seed)
        share = torch.cat([self.share, self.share.mean().expand(len(new))])
        return replace(
            self, features=torch.cat([self.features, new]), label=torch.cat([self.label, label]), share=share
        )


@contextmanager
def own_labels(classes: Array) -> Iterator[None]:
    """Raise a UserError as the ValueError that scikit-learn's tools expect, its class by the user's label."""
    try:
        yield
    except ParameterError:
        raise
    except ClassError as error:
        raise UserValueError(error.sentence.format(classes[error.y])) from error
    except UserError as error:
        raise UserValueError(str(error)) from error


def wanted_of(wanted: Mapping[Any, int], classes: Array) -> Tensor:
    """Synthetic rows of every class, (c,), of what `check_sampling_strategy` says by label."""
    return torch.tensor([int(wanted.get(c, 0)) for c in classes.tolist()])


def scaling(X: Array, share: Array | None = None) -> tuple[Array, float]:
    """The mean of features (n, k) weighted by `share` (n,), and the root mean square length about it.

    Raises UserError for features too large to be squared.
    """
    center = np.average(X, axis=0, weights=share)
    with np.errstate(over="ignore"):
        square = float(np.average(np.square(X - center), axis=0, weights=share).sum())
    if not np.isfinite(square):
        raise UserValueError("The features are too large to be squared: divide them by a number.")
    return center, float(np.sqrt(square)) or 1.0


def seed_of(random_state: Any) -> int:
    """The seed of a sampler, drawn from scikit-learn's random_state."""
    return int(check_random_state(random_state).randint(2**31 - 1))

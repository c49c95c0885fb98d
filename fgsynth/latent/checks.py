"""Checks of features, labels, counts and parameters, and rows grouped by class."""

from typing import Any, ClassVar

import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import InvalidParameterError
from torch import Tensor

from fgsynth.utils.errors import UserError


class ParameterError(UserError, InvalidParameterError):  # type: ignore[misc]
    """A parameter out of range: as scikit-learn's tools expect it, and one sentence for the command line."""


class ClassError(UserError):
    """A mistake of class number `y`; in the sentence, {} stands for the class's name."""

    def __init__(self, y: int, sentence: str) -> None:
        super().__init__(sentence.format(y))
        self.y, self.sentence = y, sentence


class Validated(BaseEstimator):  # type: ignore[misc]
    """An estimator whose parameters scikit-learn validates when it is fitted, raising ParameterError."""

    _parameter_constraints: ClassVar[dict[str, Any]]

    def _validate_params(self) -> None:
        try:
            super()._validate_params()
        except InvalidParameterError as error:
            raise ParameterError(f"{error}") from error


def check_features(features: Tensor, label: Tensor, name: str = "features") -> None:
    """Check labelled features: float32 (n, k), finite, and one int64 class number from 0 up per row.

    name: what an error calls them ("training features"). Raises UserError that names the first
    bad row and its class.
    """
    if not isinstance(features, Tensor) or features.dtype != torch.float32:
        raise UserError(f"The {name} are {_kind(features)}: give a torch.float32 tensor (n, k).")
    if features.ndim != 2 or 0 in features.shape:
        raise UserError(
            f"The {name} have the shape {tuple(features.shape)}: give at least one row as (n, k)."
        )
    if not isinstance(label, Tensor) or label.dtype != torch.int64:
        raise UserError(
            f"The labels of the {name} are {_kind(label)}: give class numbers from 0 up as torch.int64."
        )
    if label.shape != (len(features),):
        raise UserError(
            f"{len(features)} rows of {name} but labels of the shape {tuple(label.shape)}: give one per row."
        )
    if (label < 0).any():
        row = int((label < 0).nonzero()[0])
        raise UserError(
            f"Row {row} of the {name} has the class {int(label[row])}: classes are numbered from 0 up."
        )
    # A sum is finite only if all of its terms are; one that overflows is looked into.
    if not features.sum().isfinite() and not (finite := features.isfinite().all(1)).all():
        row = int((~finite).nonzero()[0])
        raise UserError(
            f"Row {row} of the {name} (class {int(label[row])}) is not finite: leave it out or extract anew."
        )


def check_counts(counts: Tensor) -> None:
    """Check numbers per class: a tensor of whole numbers from 0 up, (c,).

    Raises UserError that names the first bad class.
    """
    if not isinstance(counts, Tensor) or counts.ndim != 1 or counts.dtype != torch.int64:
        raise UserError(
            f"The counts are {_kind(counts)}: give one number per class as a torch.int64 tensor (c,)."
        )
    if (counts < 0).any():
        y = int((counts < 0).nonzero()[0])
        raise UserError(f"Class {y} has the count {int(counts[y])}: a count is 0 or more.")


def by_class(features: Tensor, label: Tensor) -> dict[int, Tensor]:
    """Rows grouped by class: {y: (n_y, k)}, in their order, classes ascending; copies of what was given."""
    order = label.argsort(stable=True)
    classes, sizes = label.unique(return_counts=True)
    return dict(zip(classes.tolist(), features[order].split(sizes.tolist()), strict=True))


def _kind(value: object) -> str:
    """What a value is, for a sentence: the dtype and shape of a tensor, else the type."""
    if isinstance(value, Tensor):
        return f"{value.dtype} of the shape {tuple(value.shape)}"
    return f"of the type {type(value).__name__}"

"""Learning in feature space (LS): a frozen feature map, synthetic features, a linear probe."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.covariance import OAS
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from fgsynth.errors import UserError
from fgsynth.losses import balanced_softmax
from fgsynth.metrics import long_tail_accuracy
from fgsynth.seeds import generator, stable_seed

Ints = NDArray[np.int64]


def long_tail_counts(n_classes: int, n_max: int, n_min: int) -> Ints:
    """Class sizes from `n_max` down to `n_min`, n_max (n_min / n_max)^(i^2), i from 0 to 1.

    The square makes a broad head, so that ten classes populate many, medium and few (our choice;
    the usual exponential profile would leave one class above 100).
    """
    if not 2 <= n_min <= n_max:
        raise UserError(f"Class sizes from {n_max} down to {n_min}: need 2 <= n_min <= n_max.")
    i = np.linspace(0, 1, n_classes)
    return np.round(n_max * (n_min / n_max) ** (i**2)).astype(np.int64)


@dataclass(frozen=True)
class Split:
    """Indices of one long-tailed draw; `balanced` holds the training set before it was thinned."""

    train: Ints
    balanced: Ints
    val: Ints
    test: Ints


def long_tail_split(label: Ints, counts: Ints, n_val: int, n_test: int, seed: int) -> Split:
    """A long-tailed training set with balanced validation and test sets, disjoint.

    Which class gets which of `counts` is drawn, so that no class is always the rare one.
    Raises UserError naming a class with too few samples.
    """
    rng = np.random.default_rng(stable_seed("long tail", seed))
    counts = rng.permutation(counts)
    parts: dict[str, list[Ints]] = {"train": [], "balanced": [], "val": [], "test": []}
    for y, n in enumerate(counts):
        mine = rng.permutation(np.flatnonzero(label == y))
        held_out, largest = n_val + n_test, int(counts.max())
        if len(mine) < held_out + largest:
            raise UserError(
                f"Class {y} has {len(mine)} samples, but {held_out + largest} are asked for "
                "(n_test + n_val + n_max): lower one of them."
            )
        parts["test"].append(mine[:n_test])
        parts["val"].append(mine[n_test:held_out])
        parts["train"].append(mine[held_out : held_out + n])
        parts["balanced"].append(mine[held_out : held_out + largest])
    return Split(**{name: np.concatenate(part) for name, part in parts.items()})


def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's embedded handwritten digits: pictures (1797, 1, 8, 8) in [0, 1], labels (1797,)."""
    pixels, label = load_digits(return_X_y=True)
    return torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 16, torch.from_numpy(label).long()


def random_convolution_features(pictures: Tensor, filters: int, seed: int = 0) -> Tensor:
    """Frozen feature map: random 3x3 filters, ReLU, 2x2 average pooling, unit length, centred.

    Stands in for a frozen vision model where none can be fetched (single-layer features with
    random filters, Coates et al. 2011). (n, 1, h, w) -> (n, 4 * filters), mean squared length 1.
    """
    w = torch.randn(filters, 1, 3, 3, generator=generator("random filters", seed))
    w = F.normalize((w - w.mean((2, 3), keepdim=True)).flatten(1)).reshape_as(w)
    h = F.adaptive_avg_pool2d(F.conv2d(pictures, w, padding=1).relu(), 2)
    e = F.normalize(h.flatten(1))
    e = e - e.mean(0)
    return e / e.std()


class ClassGaussian:
    """Class-Gaussian latent sampler: one normal distribution per class, with shrunk covariance.

    Sigma_y = a S_y + (1-a) S_pooled with S by OAS and a = n_y / (n_y + strength): the fewer samples
    a class has, the more it borrows the pooled within-class covariance. strength = 0 borrows
    nothing. LS does not print its sampler: this one is our choice.
    """

    def __init__(self, strength: float = 20.0) -> None:
        self.strength = strength
        self.mean: dict[int, Tensor] = {}
        self.factor: dict[int, Tensor] = {}

    def fit(self, features: Tensor, label: Tensor) -> "ClassGaussian":
        """Features (n, k), label (n,). Raises UserError for a class with fewer than two samples."""
        groups = {int(y): features[label == y].double() for y in label.unique()}
        for y, e in groups.items():
            if len(e) < 2:
                raise UserError(f"Class {y} has {len(e)} features: a class Gaussian needs at least 2.")
        centred = torch.cat([e - e.mean(0) for e in groups.values()])
        pooled = torch.from_numpy(OAS().fit(centred.numpy()).covariance_)
        for y, e in groups.items():
            own = torch.from_numpy(OAS().fit(e.numpy()).covariance_)
            a = len(e) / (len(e) + self.strength)
            self.mean[y] = e.mean(0)
            self.factor[y] = torch.linalg.cholesky(a * own + (1 - a) * pooled)
        return self

    def sample(self, y: int, n: int, seed: int) -> Tensor:
        """`n` synthetic features of class `y`, (n, k). Raises UserError for a class not fitted."""
        if y not in self.mean:
            raise UserError(f"Class {y} was not fitted: it has no real features.")
        z = torch.randn(n, len(self.mean[y]), generator=generator("class Gaussian", seed, y)).double()
        return (self.mean[y] + z @ self.factor[y].T).float()


def fill(features: Tensor, label: Tensor, sampler: ClassGaussian, seed: int) -> tuple[Tensor, Tensor]:
    """Real plus synthetic features: every class filled to the size of the largest."""
    counts = label.bincount()
    new = {y: sampler.sample(y, int(counts.max() - n), seed) for y, n in enumerate(counts.tolist()) if n}
    labels = [torch.full((len(e),), y) for y, e in new.items()]
    return torch.cat([features, *new.values()]), torch.cat([label, *labels])


@dataclass(frozen=True)
class Probe:
    """A linear probe: weight (k, c), bias (c,)."""

    weight: Tensor
    bias: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """Predicted class (n,)."""
        return (features @ self.weight + self.bias).argmax(1)


def fit_probe(features: Tensor, label: Tensor, counts: Tensor, weight_decay: float, balance: float) -> Probe:
    """Linear probe by full-batch L-BFGS on (balanced) softmax cross entropy + weight_decay |W|^2.

    `balance` is the weight of balanced softmax (0: plain cross entropy), `counts` its n_c.
    """
    c = len(counts)
    parameters = torch.zeros(features.shape[1] + 1, c, dtype=torch.double, requires_grad=True)
    e = torch.cat([features, torch.ones(len(features), 1)], 1).double()
    optimiser = torch.optim.LBFGS([parameters], max_iter=100, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimiser.zero_grad()
        value = balanced_softmax(e @ parameters, label, counts, balance)
        value = value + weight_decay * parameters[:-1].square().sum()
        value.backward()
        return value

    optimiser.step(objective)
    fitted = parameters.detach().float()
    return Probe(fitted[:-1], fitted[-1])


@dataclass(frozen=True)
class Method:
    """A row of the comparison: which features the probe is trained on, and its balance."""

    name: str
    balance: float = 0.0
    sampler: ClassGaussian | None = None
    full: bool = False


METHODS = (
    Method("cross entropy"),
    Method("balanced softmax", balance=1.0),
    Method("class Gaussian, own covariance", sampler=ClassGaussian(strength=0.0)),
    Method("class Gaussian", sampler=ClassGaussian()),
    Method("class Gaussian, balanced softmax", balance=1.0, sampler=ClassGaussian()),
    Method("full balanced set", full=True),
)
"""Balanced softmax takes its n_c from the real training set, also where synthetic features are added."""


def trial(
    features: Tensor, label: Tensor, split: Split, seed: int, weight_decays: list[float]
) -> pd.DataFrame:
    """All METHODS on one split: one row each with overall, many, medium and few test accuracy (percent).

    The weight decay of each row is the one with the best average validation accuracy.
    """
    counts = label[split.train].bincount()

    def evaluate(probe: Probe, part: Ints) -> dict[str, float]:
        return long_tail_accuracy(probe.predict(features[part]), label[part], counts)

    rows = []
    for method in METHODS:
        mine = split.balanced if method.full else split.train
        e, y = features[mine], label[mine]
        if method.sampler:
            e, y = fill(e, y, method.sampler.fit(e, y), seed)
        fitted = [(wd, fit_probe(e, y, counts, wd, method.balance)) for wd in weight_decays]
        wd, probe = max(fitted, key=lambda pair: evaluate(pair[1], split.val)["overall"])
        rows.append({"method": method.name, "weight_decay": wd, **evaluate(probe, split.test)})
    return pd.DataFrame(rows).assign(seed=seed)

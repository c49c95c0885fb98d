"""Second stages that rescale or shift the last layer: LWS, tau-normalisation, MiSLAS."""

import math
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import skip_init

from fgsynth.config.checked import checked
from fgsynth.config.schema import Count, NotNegative, NotNegativeCount
from fgsynth.data.images import from_uint8
from fgsynth.data.sources import Source, count
from fgsynth.models.networks import Classifier, last_layer, with_last_layer
from fgsynth.train.batches import plain_batches
from fgsynth.train.objective import Drawing
from fgsynth.train.recipe import Recipe
from fgsynth.train.sampling import Rows, drawn
from fgsynth.train.second_stage.crt import Pool, fit_balanced
from fgsynth.train.train import outputs
from fgsynth.utils.seeds import generator

TAUS = tuple(i / 10 for i in range(11))
"""Values that tau is chosen among (Kang et al. 2020, 4.1)."""
FIRST, LAST = 0.4, 0.1
"""Label-aware smoothing of the most and the least frequent class, the paper's for Places-LT."""


class Rescaled(nn.Module):
    """A linear layer whose logits are rescaled by class, and whose weight may be shifted.

    scale: (c,), from 1; shift: (c, k), from 0, learnt where `shifted`. The layer itself stays as it is.
    """

    def __init__(self, layer: nn.Linear, shifted: bool) -> None:
        super().__init__()
        bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias
        self.weight, self.bias = layer.weight.detach().cpu(), bias.detach().cpu()
        self.scale = nn.Parameter(torch.ones(layer.out_features))
        self.shift = nn.Parameter(torch.zeros_like(self.weight), requires_grad=shifted)

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, k) -> (n, c)."""
        return self.scale * linear(x, self.weight + self.shift, self.bias)

    def linear(self) -> nn.Linear:
        """The linear layer that it is now."""
        return linear_layer(self.scale[:, None] * (self.weight + self.shift), self.scale * self.bias)


@checked
def lws(
    network: Classifier, real: Source, recipe: Recipe, seed: int, *, workers: NotNegativeCount = 0
) -> Classifier:
    """LWS: a learnt scale for every class's logit, classes drawn equally often (Kang et al. 2020, 4.1).

    Embedding and last layer stay as they are; what is used of the recipe and raised is as in `crt.crt`.
    The bias is scaled along with its class vector, our reading. Returns a new frozen network.
    """
    new = Rescaled(last_layer(network), shifted=False)
    pool = Pool.of(network, real, recipe, workers)
    fit_balanced(new, pool, cross_entropy, recipe, generator("LWS batches", seed))
    return with_last_layer(network, new.linear())


@checked
def tau_normalised(network: Classifier, tau: NotNegative) -> Classifier:
    """tau-normalisation: class vectors divided by their norm^tau, no bias (Kang et al. 2020, eq. 2).

    Returns a new frozen network; tau 0 only drops the bias, tau 1 makes all norms 1.
    """
    scaled = _normalised(last_layer(network).weight.detach(), tau)
    return with_last_layer(network, linear_layer(scaled, torch.zeros_like(scaled[:, 0])))


def _normalised(weight: Tensor, tau: float) -> Tensor:
    return weight / weight.norm(dim=1, keepdim=True) ** tau


@checked
def best_tau(
    network: Classifier, val: Source, *, side: Count | None = None, workers: NotNegativeCount = 0
) -> float:
    """The tau of `tau_normalised` with the highest average validation accuracy, the first of equal ones.

    Raises UserError for no images, and for a label that is none of the network's.
    """
    count(val, last_layer(network).out_features, "validation")
    _, embedding = outputs(network, val, side=side, workers=workers)
    weight = last_layer(network).weight.detach().cpu()
    right = [(linear(embedding, _normalised(weight, tau)).argmax(1) == val.label).sum() for tau in TAUS]
    return TAUS[int(torch.stack(right).argmax())]


@checked
def mislas(
    network: Classifier, real: Source, recipe: Recipe, seed: int, *, workers: NotNegativeCount = 0
) -> Classifier:
    """MiSLAS's second stage, after one with mixup: shifted batch norm, label-aware smoothing.

    Zhong et al. 2021. Batch norm gets the statistics of class-balanced batches (4.2); then scale and shift of
    the last layer are learnt on such batches (eq. 10, its own weights kept, r = 1). Our choice: statistics
    first, the layer afterwards on embeddings computed once. Of the recipe as in `lws`. Returns a new frozen
    network. Raises UserError for a class without real images.
    """
    network = shifted_batch_norm(network, real, recipe, seed, workers=workers)
    pool = Pool.of(network, real, recipe, workers)
    new = Rescaled(last_layer(network), shifted=True)
    loss = partial(label_aware_smoothing, counts=pool.count, first=FIRST, last=LAST)
    fit_balanced(new, pool, loss, recipe, generator("MiSLAS batches", seed))
    return with_last_layer(network, new.linear())


def label_aware_smoothing(logits: Tensor, label: Tensor, counts: Tensor, first: float, last: float) -> Tensor:
    """Cross entropy with labels smoothed more for frequent classes, mean (Zhong et al. 2021, eq. 5 and 6).

    The label keeps 1 - e_y, the others share e_y = last + (first - last) sin(pi/2 (n_y - n_min) / (n_max -
    n_min)), the paper's concave form. logits (n, c), counts (c,).
    """
    n = counts.double()
    place = (n - n.min()) / (n.max() - n.min()).clamp(min=1e-12)
    e = (last + (first - last) * (math.pi / 2 * place).sin()).to(logits)[label]
    log_p = logits.log_softmax(1)
    own = log_p.gather(1, label[:, None])[:, 0]
    rest = (log_p.sum(1) - own) / (logits.shape[1] - 1)
    return -((1 - e) * own + e * rest).mean()


@torch.no_grad()
def shifted_batch_norm(
    network: Classifier, real: Source, recipe: Recipe, seed: int, *, workers: int = 0
) -> Classifier:
    """Shifted batch norm: a copy with the mean statistics of an epoch of class-balanced batches.

    Zhong et al. 2021, 4.2; its affine weights stay. A network without batch norm is copied as it is.
    """
    count(real, last_layer(network).out_features, "training")
    copied = deepcopy(network).eval()
    norms = [module for module in copied.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return copied
    batches = drawn(Rows(real.label), Drawing("balanced"), recipe.batch, generator("shifted batches", seed))
    rows = torch.cat([next(batches) for _ in range(recipe.updates(len(real), False))])
    for norm in norms:
        norm.reset_running_stats()
        # The plain mean over all batches.
        norm.momentum = None
        norm.train()
    device = next(copied.parameters()).device
    for x in plain_batches(real, recipe.batch, recipe.side, workers, rows):
        copied(from_uint8(x.to(device)))
    return copied.eval().requires_grad_(False)


def linear_layer(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer of these weights (c, k), (c,), on their device."""
    # Without drawing weights, which would move torch's global generator.
    layer: nn.Linear = skip_init(nn.Linear, weight.shape[1], weight.shape[0], device=weight.device)
    layer.weight, layer.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())
    return layer

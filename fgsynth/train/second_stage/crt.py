"""Second stages of long-tailed learning: the last layer alone, retrained on frozen embeddings."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, one_hot

from fgsynth.config.checked import checked
from fgsynth.config.schema import NotNegativeCount
from fgsynth.data.sources import Source, count
from fgsynth.models.networks import Classifier, last_layer, with_last_layer
from fgsynth.train.loop import finite
from fgsynth.train.losses import balanced_softmax, prior_counts
from fgsynth.train.recipe import Recipe
from fgsynth.train.train import outputs
from fgsynth.utils.progress import progress
from fgsynth.utils.seeds import generator, stable_seed

Embedded = tuple[Tensor, Tensor]
"""A batch of embeddings (n, k) and labels (n,)."""
RATES_RATE, RATES_BETAS, TEMPERATURE = 0.01, (0.9, 0.99), 1.0
"""Adam's settings for the sampling rates, and the Gumbel-softmax's temperature: our choice."""


@checked
def crt(
    network: Classifier, real: Source, recipe: Recipe, seed: int, *, workers: NotNegativeCount = 0
) -> Classifier:
    """cRT: a new last layer, plain cross entropy, classes drawn equally often (Kang et al. 2020, 4.1).

    The embedding stays as it is; it is computed once, of the plain views. Of the recipe: optimiser, rate,
    weight_decay, epochs, updates_per_epoch, batch, warmup and side. Returns a new frozen network.
    Raises UserError for a class without real images.
    """
    layer = last_layer(network)
    pool = Pool.of(network, real, recipe, workers)
    with torch.random.fork_rng():
        torch.manual_seed(stable_seed("cRT weights", seed))
        new = nn.Linear(layer.in_features, layer.out_features)
    fit_balanced(new, pool, cross_entropy, recipe, generator("cRT batches", seed))
    return with_last_layer(network, new)


@checked
def meta_sampler(
    network: Classifier,
    real: Source,
    synthetic: Source | None,
    recipe: Recipe,
    seed: int,
    *,
    workers: NotNegativeCount = 0,
) -> tuple[Classifier, Tensor]:
    """Meta Sampler: the last layer under balanced softmax, learning how often to draw each class.

    Ren et al. 2020 (BALMS), 3.3. Each update draws a batch by a straight-through Gumbel-softmax of the
    rates, takes one differentiable step of gradient descent with it, and moves the rates down the plain
    cross entropy that results on a class-balanced batch; then a batch by the new rates makes the step.
    Our choices: rates start as the real images' shares; the layer starts from the first stage's; the
    balanced batch is of real images; `real_share` of a class's draws are real where it has both;
    Adam moves the rates. Of the recipe as in `crt`, with real_share, balanced and counts.
    Returns a new frozen network, and the last rates (c,), which sum to 1.
    Raises UserError for a class without images.
    """
    layer, pools = last_layer(network), [Pool.of(network, real, recipe, workers)]
    if synthetic is not None:
        pools.append(Pool.of(network, synthetic, recipe, workers, whole=False))
    sampler = _MetaSampler(pools, recipe, seed)
    new = nn.Linear(layer.in_features, layer.out_features)
    new.load_state_dict(layer.state_dict())
    updates = recipe.epochs * recipe.updates(len(real), synthetic is not None)
    fit_layer(new.cpu(), lambda rate: sampler.batch(new, rate), sampler.loss, recipe, updates)
    return with_last_layer(network, new), sampler.rates.detach().softmax(0)


@dataclass(frozen=True)
class Pool:
    """Embeddings (n, k) to be drawn by class: `order` has each class's rows from `start` on, `count` many."""

    embedding: Tensor
    order: Tensor
    start: Tensor
    count: Tensor

    @classmethod
    def of(
        cls, network: Classifier, source: Source, recipe: Recipe, workers: int, whole: bool = True
    ) -> "Pool":
        """Of the plain views of a source. Raises UserError as `count`; if `whole`, for an empty class."""
        counts = count(source, last_layer(network).out_features, "training")
        if whole:
            prior_counts("real", counts)
        _, embedding = outputs(network, source, side=recipe.side, workers=workers)
        return cls(embedding, source.label.argsort(stable=True), counts.cumsum(0) - counts, counts)

    def take(self, classes: Tensor, draw: torch.Generator) -> Tensor:
        """A random embedding of each of these classes, (m, k); of a class without any, anyone's."""
        offset = (torch.rand(len(classes), generator=draw) * self.count[classes]).long()
        # In float32 a draw near 1 times a large count may round up to the count itself.
        offset = torch.minimum(offset, (self.count[classes] - 1).clamp(min=0))
        rows = (self.start[classes] + offset).clamp(max=len(self.order) - 1)
        return self.embedding[self.order[rows]]

    def balanced(self, n: int, draw: torch.Generator) -> Embedded:
        """Embeddings and labels, all classes equally likely."""
        classes = torch.randint(len(self.count), (n,), generator=draw)
        return self.take(classes, draw), classes


class _MetaSampler:
    """The learnable class rates, as logits, and the batches they give."""

    def __init__(self, pools: list[Pool], recipe: Recipe, seed: int) -> None:
        self.pools, self.recipe = pools, recipe
        real = pools[0].count
        self.share = recipe.real_per_batch(True) / recipe.batch if len(pools) == 2 else 1.0
        synthetic = pools[1].count if len(pools) == 2 else None
        self.counts = prior_counts(recipe.counts, real, synthetic, self.share)
        self.rates = real.double().float().log().requires_grad_(True)
        self.optimiser = torch.optim.Adam([self.rates], RATES_RATE, RATES_BETAS)
        self.draw = generator("meta sampler", seed)

    def loss(self, logits: Tensor, label: Tensor, reduction: str = "mean") -> Tensor:
        return balanced_softmax(logits, label, self.counts, self.recipe.balanced, reduction)

    def batch(self, layer: nn.Linear, rate: float) -> Embedded:
        """A batch by the rates, once these have moved."""
        self._learn(layer, rate)
        p = self.rates.detach().softmax(0)
        classes = torch.multinomial(p, self.recipe.batch, replacement=True, generator=self.draw)
        return self._take(classes), classes

    def _take(self, classes: Tensor) -> Tensor:
        embedding = self.pools[0].take(classes, self.draw)
        if len(self.pools) == 1:
            return embedding
        made = self.pools[1]
        replace = torch.rand(len(classes), generator=self.draw) >= self.share
        replace &= made.count[classes] > 0
        return torch.where(replace[:, None], made.take(classes, self.draw), embedding)

    def _learn(self, layer: nn.Linear, rate: float) -> None:
        n, c = self.recipe.batch, len(self.rates)
        # A slot of the batch chooses among one candidate of every class, so that the rates of classes it
        # does not take learn as well; slots share the candidates, about n of them in all.
        groups = -(-n // c)
        classes = torch.arange(c).repeat(groups)
        weights: dict[str, Tensor] = dict(layer.named_parameters())
        losses = self.loss(functional_call(layer, weights, (self._take(classes),)), classes, "none")
        uniform = torch.rand(n, c, generator=self.draw).clamp(1e-9, 1 - 1e-7)
        soft = ((self.rates - (-uniform.log()).log()) / TEMPERATURE).softmax(1)
        choice = one_hot(soft.argmax(1), c) + soft - soft.detach()
        inner = (choice * losses.reshape(groups, c)[torch.arange(n) % groups]).sum(1).mean()
        gradients = torch.autograd.grad(inner, list(weights.values()), create_graph=True)
        moved = {k: w - rate * g for (k, w), g in zip(weights.items(), gradients, strict=True)}
        embedding, label = self.pools[0].balanced(n, self.draw)
        outer = cross_entropy(functional_call(layer, moved, (embedding,)), label)
        (self.rates.grad,) = torch.autograd.grad(outer, [self.rates])
        self.optimiser.step()


def fit_balanced(
    layer: nn.Module,
    pool: Pool,
    loss: Callable[[Tensor, Tensor], Tensor],
    recipe: Recipe,
    draw: torch.Generator,
) -> None:
    """Train a last layer on batches of a pool in which all classes are equally likely."""
    updates = recipe.epochs * recipe.updates(len(pool.order), False)
    fit_layer(layer, lambda _: pool.balanced(recipe.batch, draw), loss, recipe, updates)


def fit_layer(
    layer: nn.Module,
    batch: Callable[[float], Embedded],
    loss: Callable[[Tensor, Tensor], Tensor],
    recipe: Recipe,
    updates: int,
) -> None:
    """Train a last layer; `batch` gives embeddings and labels at a learning rate."""
    optimiser = recipe.build_optimiser(layer.parameters())
    schedule = recipe.build_schedule(optimiser, updates)
    for i in progress(range(updates), "second stage"):
        schedule.step_update(i)
        embedding, label = batch(float(optimiser.param_groups[0]["lr"]))
        optimiser.zero_grad()
        value = loss(layer(embedding), label)
        value.backward()
        optimiser.step()
        finite(value, i + 1, recipe.rate)

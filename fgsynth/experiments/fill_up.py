"""Fill-Up (Shin et al. 2023): synthetic images by learned words, then a second stage on real ones alone."""

from copy import deepcopy
from dataclasses import replace

import torch

from fgsynth.config.schema import Inversion
from fgsynth.data.images import from_uint8
from fgsynth.data.sources import Source, count
from fgsynth.generate.plan import Method
from fgsynth.models.networks import Classifier, last_layer
from fgsynth.train.batches import training_batches
from fgsynth.train.loop import finite
from fgsynth.train.losses import balanced_softmax, prior_counts
from fgsynth.train.recipe import Recipe
from fgsynth.utils.progress import progress
from fgsynth.utils.seeds import stable_seed

SLOWER = 0.1
"""The second stage's learning rate, times the first's: our choice."""


def fill_up(inversion: Inversion) -> Method:
    """The method of Fill-Up: by text alone, a class's name being a word learned from its images."""
    return Method(image=False, inversion=inversion)


def fine_tuned(
    network: Classifier, real: Source, recipe: Recipe, seed: int, *, workers: int = 0
) -> Classifier:
    """Fill-Up's second stage: all weights fine-tuned on real images alone, by balanced softmax.

    The first is the trainer's, on real and synthetic images. That there are two is the paper's; that the
    second sees real images only is how we read it; its loss and SLOWER are our choice. Of the recipe:
    optimiser, weight_decay, epochs, updates_per_epoch, batch, warmup, augment and side; n_c are real counts.
    Returns a new frozen network. Raises UserError for a class without real images.
    """
    device = next(network.parameters()).device
    recipe = replace(recipe, rate=SLOWER * recipe.rate, objective=None)
    tuned = deepcopy(network).requires_grad_(True).train()
    shown = count(real, last_layer(network).out_features, "training")
    counts = prior_counts("real", shown).to(device, torch.float32)
    updates = recipe.epochs * recipe.updates(len(real), False)
    optimiser = recipe.build_optimiser(tuned.parameters())
    schedule = recipe.build_schedule(optimiser, updates)
    feed = training_batches(real, None, recipe, updates, stable_seed("Fill-Up", seed), workers, False)
    with torch.random.fork_rng(devices=[]):
        # For networks with dropout.
        torch.default_generator.manual_seed(stable_seed("Fill-Up dropout", seed))
        for i in progress(range(updates), "second stage"):
            batch = next(feed)
            schedule.step_update(i)
            optimiser.zero_grad()
            logits = tuned(from_uint8(batch.x.to(device)))[0]
            loss = balanced_softmax(logits, batch.label.to(device), counts)
            loss.backward()
            optimiser.step()
            finite(loss, i + 1, recipe.rate)
    return tuned.eval().requires_grad_(False)

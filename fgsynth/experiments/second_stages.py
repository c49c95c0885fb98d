"""Second stages of an experiment: what becomes of a trained classifier's last layer.

They are sent to other processes: what they hold is what they need, and not the experiment.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from fgsynth.data.benchmark import group_of
from fgsynth.experiments.experiment import Experiment
from fgsynth.experiments.study import SecondStage
from fgsynth.models.networks import Classifier
from fgsynth.train.second_stage import crt, dfr, rescale


def retrained(exp: Experiment, epochs: int, method: Callable[..., Classifier] = crt.crt) -> SecondStage:
    """Train by the experiment's recipe for other epochs, on real images alone.

    method: cRT (default, Kang et al. 2020) or any other `(network, real, recipe, seed, workers) -> network`.
    """
    recipe, workers = replace(exp.recipe, epochs=epochs, select="last"), exp.workers
    return lambda real, made, network, seed: method(network, real, recipe, seed, workers=workers)


def balanced_meta_softmax(exp: Experiment, epochs: int) -> SecondStage:
    """Train the last layer by Meta Sampler and balanced softmax, on real and synthetic images (BALMS)."""
    recipe, workers = replace(exp.recipe, epochs=epochs), exp.workers
    train = partial(crt.meta_sampler, recipe=recipe, workers=workers)
    return lambda real, made, network, seed: train(network, real, made, seed=seed)[0]


def normalised(exp: Experiment) -> SecondStage:
    """Rescale by tau-normalisation, tau by average validation accuracy."""
    val, side, workers = exp.trainings.images("val"), exp.recipe.side, exp.workers
    best = partial(rescale.best_tau, val=val, side=side, workers=workers)
    return lambda real, made, network, seed: rescale.tau_normalised(network, best(network))


def refitted(exp: Experiment) -> SecondStage:
    """Refit by DFR on the validation images, in equal numbers of every group."""
    val, side, workers = exp.trainings.images("val"), exp.recipe.side, exp.workers
    manifest = exp.bench.manifest
    group = torch.tensor(group_of(manifest.rows("val"), manifest).to_numpy())
    return lambda real, made, network, seed: dfr.dfr(network, val, group, seed, side=side, workers=workers)

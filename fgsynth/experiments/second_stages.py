"""Second stages of an experiment: what becomes of a trained classifier's last layer.

They are sent to other processes: what they hold is what they need, and not the experiment.
"""

from collections.abc import Callable
from dataclasses import replace

import torch

from fgsynth.data.benchmark import group_of
from fgsynth.data.sources import Source
from fgsynth.experiments.experiment import Experiment
from fgsynth.experiments.study import SecondStage
from fgsynth.models.networks import Classifier
from fgsynth.train.second_stage import crt, dfr, rescale


def retrained(exp: Experiment, epochs: int, method: Callable[..., Classifier] = crt.crt) -> SecondStage:
    """Train by the experiment's recipe for other epochs, on real images alone.

    method: cRT (default, Kang et al. 2020) or any other `(network, real, recipe, seed, workers) -> network`.
    """
    recipe, workers = replace(exp.recipe, epochs=epochs, select="last"), exp.workers

    def stage(real: Source, made: Source | None, network: Classifier, seed: int) -> Classifier:
        return method(network, real, recipe, seed, workers=workers)

    return stage


def balanced_meta_softmax(exp: Experiment, epochs: int) -> SecondStage:
    """Train the last layer by Meta Sampler and balanced softmax, on real and synthetic images (BALMS)."""
    recipe, workers = replace(exp.recipe, epochs=epochs), exp.workers

    def stage(real: Source, made: Source | None, network: Classifier, seed: int) -> Classifier:
        return crt.meta_sampler(network, real, made, recipe, seed, workers=workers)[0]

    return stage


def normalised(exp: Experiment) -> SecondStage:
    """Rescale by tau-normalisation, tau by average validation accuracy."""
    val, side, workers = exp.trainings.images("val"), exp.recipe.side, exp.workers

    def stage(real: Source, made: Source | None, network: Classifier, seed: int) -> Classifier:
        tau = rescale.best_tau(network, val, side=side, workers=workers)
        return rescale.tau_normalised(network, tau)

    return stage


def refitted(exp: Experiment) -> SecondStage:
    """Refit by DFR on the validation images, in equal numbers of every group."""
    val, side, workers = exp.trainings.images("val"), exp.recipe.side, exp.workers
    manifest = exp.bench.manifest
    group = torch.tensor(group_of(manifest.rows("val"), manifest).to_numpy())

    def stage(real: Source, made: Source | None, network: Classifier, seed: int) -> Classifier:
        return dfr.dfr(network, val, group, seed, side=side, workers=workers)

    return stage

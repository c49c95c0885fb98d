"""Classifiers trained and applied in any process; the classes they predict are kept in files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fgsynth.data.sources import Source
from fgsynth.models.networks import Classifier
from fgsynth.train.run_folder import Trained
from fgsynth.train.train import outputs
from fgsynth.utils.paths import atomic


@dataclass(frozen=True)
class ImagesAt:
    """Images at the size of a network's input.

    side: in pixels, None where images keep their size; workers: processes that read files ahead.
    """

    images: Source
    side: int | None = None
    workers: int = 0

    def outputs(self, network: Classifier) -> tuple[Tensor, Tensor]:
        """Logits (n, c) and embeddings (n, k) of the plain views, on the CPU."""
        return outputs(network, self.images, side=self.side, workers=self.workers)


def train_and_predict(job: tuple[Callable[[], Trained], ImagesAt | None, Path]) -> None:
    """Train a classifier and predict classes; both stay in its folder and are not sent back."""
    training, images, file = job
    network = training().network
    if images is not None:
        predict_classes(network, images, file)


def refine_and_predict(
    job: tuple[Callable[[], Trained], Callable[[Classifier], Classifier], ImagesAt],
) -> NDArray[np.int64]:
    """Train or load a classifier, apply a second stage, and predict classes, (n,)."""
    training, second, images = job
    return predict_classes(second(training().network), images, None)


def predict_classes(network: Classifier, images: ImagesAt, file: Path | None) -> NDArray[np.int64]:
    """Predict the class of every image, (n,); written to a file, if given."""
    result = images.outputs(network)[0].argmax(1).numpy()
    if file:
        with atomic(file) as partial_file:
            np.save(partial_file, result)
    return result

"""Classifiers trained, and asked about images, in any process; what comes of it is in files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fgsynth.models.networks import Classifier
from fgsynth.train.batches import Source
from fgsynth.train.train import Trained, outputs
from fgsynth.utils.paths import atomic


@dataclass(frozen=True)
class Seen:
    """Images as networks see them that are asked about them.

    side: of their input, None where images keep their size; workers: processes that read files ahead.
    """

    images: Source
    side: int | None = None
    workers: int = 0

    def by(self, network: Classifier) -> tuple[Tensor, Tensor]:
        """Logits (n, c) and embeddings (n, k) of the plain views, on the CPU."""
        return outputs(network, self.images, side=self.side, workers=self.workers)


def trained_and_asked(work: tuple[Callable[[], Trained], Seen | None, Path]) -> None:
    """Trains and predicts; what comes of it is in its folder, and not sent back."""
    training, asked, kept = work
    network = training().network
    if asked is not None:
        predicted(network, asked, kept)


def second_stage(
    work: tuple[Callable[[], Trained], Callable[[Classifier], Classifier], Seen],
) -> NDArray[np.int64]:
    """Trains or loads a classifier, and predicts with what a second stage makes of it, (n,)."""
    training, second, asked = work
    return predicted(second(training().network), asked, None)


def predicted(network: Classifier, asked: Seen, kept: Path | None) -> NDArray[np.int64]:
    """The class that a network says of every image, (n,); written to the file `kept`, if given."""
    result = asked.by(network)[0].argmax(1).numpy()
    if kept:
        with atomic(kept) as partial_file:
            np.save(partial_file, result)
    return result

"""Classifiers trained, and asked about pictures, in any process; what comes of it is in files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgsynth.batches import Pictures
from fgsynth.networks import Classifier
from fgsynth.paths import atomic
from fgsynth.training import Trained, predict


def trained_and_asked(work: tuple[Callable[[], Trained], Pictures | None, Path]) -> None:
    """Trains and predicts; what comes of it is in its folder, and not sent back."""
    training, asked, kept = work
    network = training().network
    if asked is not None:
        predicted(network, asked, kept)


def second_stage(
    work: tuple[Callable[[], Trained], Callable[[Classifier], Classifier], Pictures],
) -> NDArray[np.int64]:
    """Trains or loads a classifier, and predicts with what a second stage makes of it, (n,)."""
    training, second, asked = work
    return predicted(second(training().network), asked, None)


def predicted(network: Classifier, pictures: Pictures, kept: Path | None) -> NDArray[np.int64]:
    """The class that a network says of every picture, (n,); written to the file `kept`, if given."""
    result = predict(network, pictures).argmax(1).numpy()
    if kept:
        with atomic(kept) as partial_file:
            np.save(partial_file, result)
    return result

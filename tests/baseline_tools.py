"""A moment of a training, and a network that says given logits, for tests of objectives."""

import torch

from fgsynth.train.objective import Batch, Moment

COUNTS = torch.tensor([80.0, 16.0, 4.0])
LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 1.0, 0.3], [0.2, -0.4, 0.6], [1.0, 0.0, 0.0]])
LABEL = torch.tensor([0, 1, 2, 2])
X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
BATCH = Batch(X, LABEL)


def moment(update=0, counts=COUNTS, key=0, updates=100):
    return Moment(update, updates, counts, None, {}, lambda values: values, (key,))


def says(logits, embedding=None):
    """A network that remembers what it was shown."""

    def network(x):
        network.seen = x
        return logits, embedding

    return network

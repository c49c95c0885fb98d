"""Dropout of image embeddings: the condition without some of its units."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fgsynth.config.checked import Checked
from fgsynth.config.schema import Share
from fgsynth.utils.seeds import generator


@dataclass(frozen=True)
class Dropout(Checked):
    """Dropout of the image embedding (FG 3.2): each unit is zero with probability p, the others stay.

    The paper prints p = 0.5 for Places-LT and neither whether units or whole embeddings are dropped nor
    whether the rest is scaled up; units without scaling is our reading, as it leaves the other coordinates
    where CLIP put them.
    """

    p: Share = 0.5

    def __call__(self, embedding: Tensor, seeds: Sequence[int]) -> Tensor:
        """Zero units of embeddings (n, [tokens,] d), by a seed per row, in all of its tokens alike."""
        if self.p == 0:
            return embedding
        width = embedding.shape[-1]
        draws = [torch.rand(width, generator=generator("embedding dropout", seed)) for seed in seeds]
        kept = (torch.stack(draws) >= self.p).to(embedding)
        return embedding * kept.reshape(-1, *[1] * (embedding.ndim - 2), width)


NO_DROPOUT = Dropout(0.0)

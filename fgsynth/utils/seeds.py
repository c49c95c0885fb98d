"""Randomness: explicit generators from stable hashes, one seed per sample."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def stable_seed(*parts: object) -> int:
    """BLAKE2b hash of the parts' text, as a non-negative 63-bit integer seed.

    The same on every machine and in every process (unlike `hash`). Each part is written with its
    length, so `("a", "bc")` and `("ab", "c")` differ.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = str(part).encode()
        digest.update(f"{len(text)}:".encode() + text)
    return int.from_bytes(digest.digest(), "big") >> 1


def generator(*parts: object) -> torch.Generator:
    """A fresh CPU generator seeded by `stable_seed(*parts)`."""
    return torch.Generator().manual_seed(stable_seed(*parts))


def noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise, one generator per sample: (len(seeds), *shape), float32, on the CPU.

    Drawn on the CPU whatever the device of the model, so that a sample is the same image on a
    laptop and on a cluster, alone and in any batch.
    """
    draws = [torch.randn(*shape, generator=torch.Generator().manual_seed(s)) for s in seeds]
    return torch.stack(draws) if draws else torch.empty(0, *shape)

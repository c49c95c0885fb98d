from itertools import combinations

import numpy as np
import pytest

from fgsynth.data.disk.duplicates import equal_groups, near_groups, near_pairs


def lists(groups):
    return [group.tolist() for group in groups]


def test_equal_values_are_grouped_in_order():
    assert lists(equal_groups([b"x", b"y", b"x", b"z", b"y", b"x"])) == [[0, 2, 5], [1, 4]]
    assert equal_groups([1, 2, 3]) == []
    assert equal_groups([]) == []


@pytest.mark.parametrize("bits", [0, 1, 2, 3])
def test_near_pairs_are_those_of_comparing_all(bits):
    rng = np.random.default_rng(0)
    seeds = rng.integers(1, 2**63, 40, dtype=np.uint64)
    # Copies with up to four bits flipped, anywhere.
    flips = [sum(1 << int(b) for b in rng.choice(64, k, replace=False)) for k in rng.integers(0, 5, 400)]
    rows = rng.choice(seeds, 400) ^ np.array(flips, dtype=np.uint64)
    hashes = np.unique(np.stack([rows, rng.choice(np.array([1, 3, 255, 1023], np.uint64), 400)], 1), axis=0)
    rng.shuffle(hashes)
    expected = [
        (i, j)
        for i, j in combinations(range(len(hashes)), 2)
        if all((int(a) ^ int(b)).bit_count() <= bits for a, b in zip(hashes[i], hashes[j], strict=True))
    ]
    assert near_pairs(hashes, bits).tolist() == [list(pair) for pair in expected]
    assert bits == 0 or len(expected) > 10


def test_near_groups_join_equal_hashes_and_chains():
    far = 0x0F0F_0F0F_0F0F_0F0F
    hashes = [far, 0b1_0000, 0b1_0011, 0b1_1111, 0b1_0000, far ^ (1 << 63), 0xFFFF_0000_FFFF]
    both = np.array([hashes, [7] * len(hashes)], dtype=np.uint64).T
    assert lists(near_groups(both, 2)) == [[0, 5], [1, 2, 3, 4]]
    both[5, 1] = 7 << 8
    both[[2, 3], 1] = 3
    assert lists(near_groups(both, 2)) == [[1, 2, 3, 4]]
    both[2, 1] = 0
    assert lists(near_groups(both, 2)) == [[1, 4]]


def test_flat_images_resemble_nothing():
    assert near_groups(np.array([[0, 5], [0, 5], [5, 0], [5, 0], [0, 0], [5, 5]], dtype=np.uint64)) == []
    assert near_groups(np.empty((0, 2), dtype=np.uint64)) == []


def test_a_copy_is_found_among_tens_of_thousands():
    hashes = np.random.default_rng(0).integers(1, 2**63, (30_000, 2), dtype=np.uint64)
    hashes[20_000] = hashes[7] ^ np.uint64(0b111_111)
    assert lists(near_groups(hashes)) == [[7, 20_000]]

"""Tiny image files, each another: coarse noise, so that difference hashes are far apart."""

import numpy as np
from PIL import Image

SPLIT_NAMES = {"train": "Tiny_train.txt", "val": "Tiny_val.txt", "test": "Tiny_test.txt"}


def image(path, seed, mode="RGB", size=32):
    """Writes coarse noise of a seed; the suffix decides the format."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((size, size))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert(mode).save(path)
    return path


def class_folders(root, counts):
    """counts: "train/cat" -> images."""
    for i, (folder, n) in enumerate(counts.items()):
        for j in range(n):
            image(root / folder / f"{j}.png", 1000 * i + j)
    return root

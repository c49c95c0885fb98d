"""CIFAR-100's files in small, in torchvision's layout: 10 training and 2 test images per class."""

import hashlib
import pickle

import numpy as np

from fgsynth.latent.features import cifar

CLASSES, POOL, TEST = 100, 10, 2


def write(folder):
    """Write the files; returns their digests and what they hold."""
    base = folder / cifar.CIFAR100.base_folder
    base.mkdir()
    rng = np.random.default_rng(0)
    contents = {"meta": {"fine_label_names": [f"class {i}" for i in range(CLASSES)]}}
    for name, each in (("train", POOL), ("test", TEST)):
        label = rng.permutation(np.repeat(np.arange(CLASSES), each))
        data = rng.integers(0, 256, (len(label), 3072), dtype=np.uint8)
        contents[name] = {"data": data, "fine_labels": label.tolist()}
    digests = {}
    for name, content in contents.items():
        data = pickle.dumps(content)
        (base / name).write_bytes(data)
        digests[name] = hashlib.md5(data).hexdigest()
    return digests, contents


def patch(monkeypatch, digests):
    """Have torchvision take these files for the published ones."""
    monkeypatch.setattr(cifar.CIFAR100, "train_list", [["train", digests["train"]]])
    monkeypatch.setattr(cifar.CIFAR100, "test_list", [["test", digests["test"]]])
    monkeypatch.setattr(cifar.CIFAR100, "meta", cifar.CIFAR100.meta | {"md5": digests["meta"]})

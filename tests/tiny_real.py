"""Tiny ImageNet-LT, Places-LT and NICO++ on disk: real layouts, JPEG files of several sizes, few classes."""

import dataclasses
import hashlib
from functools import partial

from tiny_files import SPLIT_NAMES, image

from fgsynth.config.schema import OfficialLists
from fgsynth.data import registry
from fgsynth.data.disk import longtail, nicopp, real

CLASSES = {"imagenet_lt": ("n01 apple", "n02 banana", "n03 car"), "places_lt": ("field-wild", "car_park")}
COUNTS = {"imagenet_lt": (4, 3, 2), "places_lt": (4, 2)}
FILES = {
    "imagenet_lt": ("{}_{}.JPEG", "ILSVRC2012_val_{}.JPEG"),
    "places_lt": ("{1:08}.jpg", "Places365_val_{}.jpg"),
}
NICO = ("car", "owl")
GROUPS = {("car", "autumn"): 8, ("car", "water"): 6, ("car", "rock"): 3, ("owl", "dim"): 7}
"""Images by class and context; 4 of each are held out."""


def lines_of(name):
    """The official lists in small: as many training images as COUNTS, one for val, two for test."""
    lines, number = {split: [] for split in SPLIT_NAMES}, 0
    train, val = FILES[name]
    for label, (line, n) in enumerate(zip(CLASSES[name], COUNTS[name], strict=True)):
        folder = line.split()[0]
        for split, amount in {"train": n, "val": 1, "test": 2}.items():
            for _ in range(amount):
                number += 1
                place = f"val/{folder}/{val.format(number)}" if split == "test" else None
                place = place or f"train/{folder}/{train.format(folder, number)}"
                lines[split].append(f"{place} {label}")
    return lines


def long_tailed(monkeypatch, folder, name, lines=None):
    """ImageNet-LT or Places-LT in small; returns the world's settings."""
    official, files = longtail.BY_NAME[name], {}
    lines = lines or lines_of(name)
    (folder / "lists").mkdir(parents=True)
    for split, listed in lines.items():
        data = "".join(f"{line}\n" for line in listed).encode()
        (folder / "lists" / SPLIT_NAMES[split]).write_bytes(data)
        files[split] = (SPLIT_NAMES[split], hashlib.sha256(data).hexdigest())
        for i, line in enumerate(listed):
            image(folder / "images" / line.split()[0], hash_of(line), size=36 + 4 * (i % 3))
    (folder / "names.txt").write_text("".join(f"{line}\n" for line in CLASSES[name]))
    tiny = dataclasses.replace(official, files=files, classnames=folder / "names.txt")
    both = partial(real.long_tailed, tiny), partial(real.long_tailed_counts, tiny)
    monkeypatch.setitem(registry.REAL, name, (OfficialLists, *both))
    return {"source": "disk", "root": str(folder / "images"), "lists": str(folder / "lists")}


def groups(monkeypatch, folder):
    """NICO++ in small; returns the world's settings."""
    (folder / "names.txt").write_text("".join(f"{name}\n" for name in NICO))
    monkeypatch.setattr(nicopp, "CLASSNAMES", folder / "names.txt")
    monkeypatch.setattr(nicopp, "HELD_OUT", 4)
    base = folder / "images/public_dg_0416/train"
    for context in nicopp.CONTEXTS:
        (base / context).mkdir(parents=True)
    for (name, context), n in GROUPS.items():
        for i in range(n):
            image(base / context / name / f"{i:06}.jpg", hash_of((name, context, i)), size=36 + 4 * (i % 3))
    return {"source": "disk", "root": str(folder / "images"), "splits": str(folder / "splits"), "seed": 0}


def world(monkeypatch, folder, name):
    folder.mkdir(exist_ok=True)
    return groups(monkeypatch, folder) if name == "nicopp" else long_tailed(monkeypatch, folder, name)


def hash_of(what):
    return int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:4])

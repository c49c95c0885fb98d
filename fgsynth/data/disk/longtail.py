"""ImageNet-LT and Places-LT (Liu et al. 2019): the official split files over a folder of images.

The Places-LT lists have a trap: their labels 116, 117, 118, 141 and 142 are other classes than in the
official index of Places365, so that names taken from there give these classes wrong prompts. Names are
therefore those of the folders in the lists, and every list is compared with them when it is read.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fgsynth.data.disk.image_set import ImageSet, as_table, require_folder, safe_path
from fgsynth.utils import paths
from fgsynth.utils.errors import UserError

CLASSNAMES = Path("data/classnames")
"""Of the project: one line per class, see the README there."""
SPLIT_SITE = "the project page of the long-tailed sets, https://liuziwei7.github.io/projects/LongTail.html"


@dataclass(frozen=True)
class Official:
    """A data set by official split files, whose lines are "<train or val>/<class folder>/<name> <label>".

    files: split -> (name, SHA-256). classnames: a file, "<class folder> <name>" or "<class folder>" per
    line. layouts: first folder of a path -> where published archives put such an image below the root.
    site: where the images are from.
    """

    name: str
    files: Mapping[str, tuple[str, str]]
    classnames: Path
    layouts: Mapping[str, tuple[str, ...]]
    site: str


IMAGENET_LT = Official(
    "imagenet_lt",
    {
        "train": (
            "ImageNet_LT_train.txt",
            "efdbdad4f050237c310b2f354cf95a8b1d7c8d57a63c4ea4bb6bf2bcb012f37f",
        ),
        "val": ("ImageNet_LT_val.txt", "9af7ba688acf9532ff5845a8fb14a1e97fdc4c51ac48bc72c08ea9c3f7ff142e"),
        "test": ("ImageNet_LT_test.txt", "d1590191cf8a71fada7b1aaedaa2d139a2aea93ff2f1b755319d0bd8dbaa55d5"),
    },
    CLASSNAMES / "imagenet_lt.txt",
    {
        "train": ("train/{folder}/{name}", "ILSVRC/Data/CLS-LOC/train/{folder}/{name}"),
        # The official archive of the validation images has no folders.
        "val": (
            "val/{folder}/{name}",
            "val/{name}",
            "ILSVRC/Data/CLS-LOC/val/{folder}/{name}",
            "ILSVRC/Data/CLS-LOC/val/{name}",
        ),
    },
    "ImageNet (ILSVRC 2012), https://www.image-net.org/download.php",
)
PLACES_LT = Official(
    "places_lt",
    {
        "train": ("Places_LT_train.txt", "726c4871dcbf07ce2f857703bfe32e9a83ffbf52d704239f6d95c4f4f4c247f7"),
        "val": ("Places_LT_val.txt", "719e3cf3766c09134ea28f56f1036c78def511ac1ed2c2532a6beef78f2439ba"),
        "test": ("Places_LT_test.txt", "44eee8441c8098c59195465abede425721bc35525d75209f9433b161a6eb37bc"),
    },
    CLASSNAMES / "places_lt.txt",
    {
        # "Easy directory structure", then the archives by first letter, as unpacked or as in torchvision.
        "train": (
            "train/{folder}/{name}",
            "places365_standard/train/{folder}/{name}",
            "data_256/{letter}/{slashes}/{name}",
            "data_256_standard/{letter}/{slashes}/{name}",
            "data_large/{letter}/{slashes}/{name}",
            "data_large_standard/{letter}/{slashes}/{name}",
        ),
        "val": (
            "val/{folder}/{name}",
            "places365_standard/val/{folder}/{name}",
            "val_256/{name}",
            "val_large/{name}",
        ),
    },
    "Places365, http://places2.csail.mit.edu/download.html",
)
BY_NAME = {official.name: official for official in (IMAGENET_LT, PLACES_LT)}


def load(official: Official, root: Path, splits: Path | None = None) -> ImageSet:
    """ImageNet-LT or Places-LT from its split files, verified, over the images below root.

    splits: folder of the split files, the root by default. Images are not opened; `require_files` tells
    whether all are there. Raises UserError for a missing or altered split file, and for class names that
    are not those of its folders.
    """
    found = survey(official, root, splits)
    if found.faults:
        raise UserError(found.faults[0])
    return found


def survey(official: Official, root: Path, splits: Path | None = None) -> ImageSet:
    """What can be had of a set; its faults tell of the rest."""
    names = class_names(paths.root() / official.classnames)
    parts: list[pd.DataFrame] = []
    faults: list[str] = []
    for split, (file, sha256) in official.files.items():
        try:
            part = read_split((splits or root) / file, sha256).assign(split=split)
            _require_folders_of(part, names, official)
            parts.append(part)
        except UserError as error:
            faults.append(str(error))
    listed = pd.concat(parts) if parts else pd.DataFrame(columns=["key", "label", "split"])
    located = _locate(require_folder(root), listed["key"].tolist(), official.layouts)
    rows = zip(listed["key"], listed["split"], listed["label"], [0] * len(listed), located, strict=True)
    classes = tuple(name for _, name in names)
    return ImageSet(official.name, root, as_table(list(rows)), classes, faults=tuple(faults))


def class_names(path: Path) -> list[tuple[str, str]]:
    """(folder, readable name) of every label; without a name, the folder's own words are the name."""
    parts = [line.partition(" ") for line in paths.read_text(path).splitlines()]
    return [
        (folder, name or folder.replace("_", " ").replace("-", " ")) for folder, _, name in parts if folder
    ]


def read_split(path: Path, sha256: str) -> pd.DataFrame:
    """The rows of a split file, key and label, after its SHA-256 was compared.

    Raises UserError for a file that is missing or another, and for a line that is no path below the root
    and a label.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: get it from {SPLIT_SITE}, or name its folder with --splits.")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise UserError(
            f"{path} has SHA-256 {digest[:12]}..., the official file has {sha256[:12]}...: download it anew "
            f"from {SPLIT_SITE}, and do not edit or convert it."
        )
    rows = []
    for i, line in enumerate(data.decode().splitlines(), 1):
        text, _, label = line.rpartition(" ")
        key = safe_path(text or line, f"{path}, line {i}")
        if not label.isdecimal() or key.count("/") != 2 or not key.startswith(("train/", "val/")):
            raise UserError(
                f"{path}, line {i} is '{line}': '<train or val>/<class folder>/<name> <label>' is needed."
            )
        rows.append((key, int(label)))
    return pd.DataFrame(rows, columns=["key", "label"])


def _require_folders_of(part: pd.DataFrame, names: list[tuple[str, str]], official: Official) -> None:
    """Class names that stand in another order would give every image a wrong prompt."""
    seen = part.assign(folder=part["key"].str.split("/").str[-2])
    for label, folder in seen[["label", "folder"]].drop_duplicates().itertuples(index=False):
        if label >= len(names) or names[label][0] != folder:
            known = names[label][0] if label < len(names) else "nothing"
            raise UserError(
                f"{official.classnames}: label {label} is {known}, but {folder} in the split files of "
                f"{official.name}: restore it with 'git checkout {official.classnames}'."
            )


def _locate(root: Path, keys: list[str], layouts: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The file of every key, in the layout that the root has, by a sample of keys for each first folder."""
    chosen = {}
    for top, templates in layouts.items():
        mine = [key for key in keys if key.startswith(f"{top}/")]
        sample = mine[:: max(1, len(mine) // 16)]
        hits = {t: sum((root / _placed(key, t)).is_file() for key in sample) for t in templates}
        chosen[top] = max(templates, key=lambda t: hits[t])
    return [_placed(key, chosen[key.split("/")[0]]) for key in keys]


def _placed(key: str, template: str) -> str:
    folder, name = key.split("/")[-2:]
    return template.format(folder=folder, name=name, letter=folder[0], slashes=folder.replace("-", "/"))

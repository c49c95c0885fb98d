"""NICO++ as in SubpopBench (Yang et al. 2023): classes in contexts, a split by a seed, written out."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fgsynth.data.benchmark import SPLITS
from fgsynth.data.disk.image_set import ImageSet, as_table, in_utf8, require_folder, safe_path
from fgsynth.data.mini import held_out_split
from fgsynth.utils import paths
from fgsynth.utils.errors import UserError, one_line
from fgsynth.utils.seeds import stable_seed

NAME = "nicopp"
CONTEXTS = ("autumn", "dim", "grass", "outdoor", "rock", "water")
CLASSNAMES = Path("data/classnames/nicopp.txt")
BASES = (
    *("", "train", "public_dg_0416/train", "nicopp/public_dg_0416/train", "track_1/public_dg_0416/train"),
    *("NICO_DG", "DG_Benchmark/NICO_DG"),
)
"""Where published archives have the folders of the contexts, below the root."""
HELD_OUT = 75
"""Images held out of every group: a third for val, the rest for test."""
PRINTED = {"train": 62_657, "val": 8_726, "test": 17_483}
"""Images by split, as the papers print them."""
SITE = "NICO++, https://nicochallenge.com (track 1, domain generalisation)"
_COLUMNS = ["key", "split", "class", "context"]


def load(root: Path, splits: Path, seed: int = 0) -> ImageSet:
    """NICO++ by the split of a seed in the folder `splits`; it is drawn and written there if there is none.

    Raises UserError for a folder that is not NICO++, and for a split that was altered.
    """
    path = split_file(splits, seed)
    if not path.is_file():
        write_split(draw_split(root, seed), path)
    return read_split(path, root)


def split_file(splits: Path, seed: int) -> Path:
    """Where the split of a seed is written."""
    return splits / f"nicopp_split_{seed}.csv"


def draw_split(root: Path, seed: int = 0) -> ImageSet:
    """Split `<root>/<context>/<class>/*.jpg` by the papers' rule, the same on every machine.

    Per group: shuffled, the first min(n, 75) held out, a third of them val, the rest test, the others train.
    The shuffle sorts by a hash of seed and key, so a listing's order does not matter. The original script
    shuffles whatever order the file system gives: its own split cannot be made again.
    Raises UserError where there are no folders of the six contexts, or none of the classes.
    """
    base, names = _base(require_folder(root)), class_names()
    label_of = {name: i for i, name in enumerate(names)}
    rows, odd, faults = [], [], []
    for c, context in enumerate(CONTEXTS):
        for folder in sorted(p for p in (root / base / context).iterdir() if p.is_dir()):
            name = folder.name.replace("_", " ")
            if name not in label_of:
                odd.append(f"{context}/{one_line(folder.name)}")
                continue
            found, bad = in_utf8(folder.glob("*.jpg"), root)
            faults += bad
            files = {f"{context}/{name}/{p.name}": p for p in found}
            keys = sorted(files, key=lambda key: (stable_seed("nicopp split", seed, key), key))
            for key, split in zip(keys, held_out_split(len(keys), HELD_OUT), strict=True):
                rows.append((key, str(split), label_of[name], c, str(files[key].relative_to(root))))
    if not rows:
        raise UserError(
            f"{root / base} has no image as <context>/<class>/*.jpg of a class of NICO++: get it from {SITE}."
        )
    left = f"{len(odd)} folder{'s are' if len(odd) > 1 else ' is'} no class of NICO++ and "
    left += f"{'are' if len(odd) > 1 else 'is'} left out ({', '.join(odd[:3])})."
    return ImageSet(NAME, root, as_table(rows), names, CONTEXTS, (left,) if odd else (), tuple(faults))


def write_split(drawn: ImageSet, path: Path) -> None:
    """Write a split as CSV, sorted as the manifest is, with its SHA-256 beside it as sha256sum has it."""
    table = drawn.manifest.table
    text = pd.DataFrame(
        {
            "key": table["key"],
            "split": table["split"],
            "class": [drawn.classes[label] for label in table["label"]],
            "context": [drawn.contexts[context] for context in table["context"]],
        }
    ).to_csv(index=False, lineterminator="\n")
    # The digest first: a split that is there always has one.
    digest = hashlib.sha256(text.encode()).hexdigest()
    paths.write_text(_digest_of(path), f"{digest}  {path.name}")
    paths.write_text(path, text)


def read_split(path: Path, root: Path) -> ImageSet:
    """A written split over the images below root.

    Raises UserError where it is missing or was altered, and for a row that is no <context>/<class>/<name>
    below the root with that class and context and a split.
    """
    table, names, base = _verified(path), class_names(), _base(require_folder(root))
    rows = []
    for line, (key, split, name, context) in enumerate(table.itertuples(index=False), 2):
        parts = safe_path(key, f"{path}, line {line}").split("/")
        known = name in names and context in CONTEXTS and split in SPLITS
        if not known or len(parts) != 3 or parts[:2] != [context, name]:
            raise UserError(
                f"{path}, line {line} is '{key},{split},{name},{context}': <context>/<class>/<name>, a "
                "split, and that class and context of NICO++ are needed."
            )
        rows.append((key, split, names.index(name), CONTEXTS.index(context), key))
    listed = as_table(rows)
    keys = listed["key"].str.rpartition("/")
    folders = {folder: _spelled(root / base, folder) for folder in keys[0].unique()}
    # As `draw_split` has it: relative to the root whatever the base is.
    listed["file"] = [str(Path(base, folders[f], name)) for f, name in zip(keys[0], keys[2], strict=True)]
    return ImageSet(NAME, root, listed, names, CONTEXTS)


def written_counts(splits: Path, seed: int) -> Tensor:
    """Training images by group, (360,), of a written split; the images need not be there.

    Raises UserError where it is missing or was altered.
    """
    table, names = _verified(split_file(splits, seed)), class_names()
    train = table[table["split"] == "train"]
    label = train["class"].map({name: i for i, name in enumerate(names)})
    group = train["context"].map({name: i for i, name in enumerate(CONTEXTS)}) + len(CONTEXTS) * label
    return torch.tensor(group.to_numpy(dtype=np.int64)).bincount(minlength=len(names) * len(CONTEXTS))


def class_names() -> tuple[str, ...]:
    """The 60 classes in the order of their labels."""
    return tuple(paths.read_text(paths.root() / CLASSNAMES).splitlines())


def differences(found: ImageSet) -> list[str]:
    """Where numbers of images differ from the printed ones, in a sentence; it is no error."""
    counts = {split: int((found.table["split"] == split).sum()) for split in PRINTED}
    if counts == PRINTED:
        return []
    counted = ", ".join(f"{counts[s]:,} for {s} (printed {n:,})" for s, n in PRINTED.items())
    return [f"The numbers of images are not the papers': {counted}; results differ from theirs by this, too."]


def _base(root: Path) -> str:
    for base in BASES:
        if all((root / base / context).is_dir() for context in CONTEXTS):
            return base
    raise UserError(
        f"{root} has no folders {', '.join(CONTEXTS)}, neither itself nor in {', '.join(BASES[1:])}: give "
        f"the folder that holds them; the data are at {SITE}."
    )


def _spelled(base: Path, folder: str) -> str:
    """The class folder with spaces or, where only that is there, with underscores."""
    under = folder.replace(" ", "_")
    return under if (base / under).is_dir() else folder


def _verified(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"{path} is missing: draw the split anew with fgsynth.data.disk.nicopp.load.")
    data, beside = path.read_bytes(), _digest_of(path)
    known = paths.read_text(beside).split() if beside.is_file() else []
    if known[:1] != [hashlib.sha256(data).hexdigest()]:
        raise UserError(
            f"{path} is not the file that {beside.name} was written for: restore both, or remove both and "
            "the split is drawn anew."
        )
    table = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)
    if list(table.columns) != _COLUMNS:
        raise UserError(f"{path} has columns {', '.join(table.columns)}: {', '.join(_COLUMNS)} are needed.")
    return table


def _digest_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")

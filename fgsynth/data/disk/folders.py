"""Any folder of images: train/<class>/, or a CSV of paths, labels, groups and splits; val held out."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pandas as pd

from fgsynth.data.benchmark import SPLITS
from fgsynth.data.disk.image_set import SUFFIXES, ImageSet, as_table, in_utf8, require_folder, safe_path
from fgsynth.utils.errors import UserError, one_line
from fgsynth.utils.paths import file_name, home, read_csv
from fgsynth.utils.seeds import stable_seed

HELD_OUT = 0.2
"""Share of the training images of every class (in every group) that becomes val where there is none."""


def load(place: str | Path) -> ImageSet:
    """A folder by its class folders, or by the one CSV that it holds instead; a CSV file by its rows."""
    path = home(place)
    if path.is_dir() and not (path / "train").exists() and len(lists := list(path.glob("*.csv"))) == 1:
        path = lists[0]
    return (from_csv if path.suffix.lower() == ".csv" else from_folders)(path)


def from_folders(root: Path) -> ImageSet:
    """Images below <split>/<class>/, the split one of train, val, test, final; only train is needed.

    Classes are the folders' names in sorted order, as `class_name` reads them. Raises UserError for a root
    without training images, and for two folders that are one class.
    """
    rows, faults, bare, left = [], [], {}, Counter[str]()
    for split in SPLITS:
        faults += _stray(require_folder(root) / split)
        for folder in _folders(root / split):
            files, odd = in_utf8(_files(folder), root)
            others = Counter(f.suffix.lower() or "no ending" for f in files if not _is_image(f))
            images = [f.relative_to(root).as_posix() for f in files if _is_image(f)]
            rows += [(name, split, folder.name, "") for name in images]
            faults += odd
            left += others
            if not images:
                bare[f"{split}/{one_line(folder.name)}"] = _counted(others) or "empty"
    if not any(row[1] == "train" for row in rows):
        why = "".join(f" ({name} holds {what})" for name, what in list(bare.items())[:1])
        raise UserError(
            f"{root} has no image as train/<class>/<name>{SUFFIXES[0]}{why}: put a folder per class into "
            f"{root / 'train'}."
        )
    notes, empty = _left_out(root, left, bare)
    return _as_set(root, root, rows, notes, [*faults, *empty])


def _stray(split: Path) -> list[str]:
    """A fault for images that lie in a split's folder itself, whose class nothing tells."""
    found = sorted(
        p.name for p in (split.iterdir() if split.is_dir() else ()) if _is_image(p) and p.is_file()
    )
    shown = [one_line(name) for name in found if not name.startswith(".")]
    if not shown:
        return []
    return [
        f"{split.name} has images outside its class folders ({len(shown):,}, {shown[0]} is the first): "
        f"move them into {split.name}/<class>/."
    ]


def _left_out(root: Path, left: Counter[str], bare: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Notes, and faults, on folders and files that are not used.

    left: endings of such files; bare: class folders without an image -> what they hold. A class that is lost
    by it is a fault.
    """
    notes, endings = [], ", ".join(SUFFIXES)
    hidden = [
        p for place in (root, *(root / split for split in SPLITS)) for p in _folders(place, hidden=True)
    ]
    if hidden:
        some = ", ".join(one_line(p.relative_to(root).as_posix()) for p in hidden)
        notes.append(f"Hidden folders are not used: {some}.")
    unused = sorted(one_line(p.name) for p in _folders(root) if p.name not in SPLITS)
    if unused:
        notes.append(f"Folders {', '.join(unused)} are not used: only {', '.join(SPLITS)} are.")
    if n := left.total():
        some = f"{n:,} files do" if n > 1 else "1 file does"
        notes.append(f"{some} not end like an image ({endings}): left out ({_counted(left)}).")
    told = "Class folders without an image: " + ", ".join(f"{name} ({what})" for name, what in bare.items())
    if any(name.startswith("train/") for name in bare):
        return notes, [f"{told}: add images that end in {endings}, or remove the folders."]
    return [*notes, *([f"{told}."] if bare else [])], []


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def class_name(folder: str) -> str:
    """The class of a folder or label: "_" is a space, and percent-encoded characters are themselves."""
    return unquote(folder.replace("_", " "))


def class_folder(name: str) -> str:
    """The folder of a class, from which `class_name` makes the class again."""
    return file_name(name).replace("_", "%5F").replace(" ", "_")


def _counted(endings: Counter[str]) -> str:
    return ", ".join(f"{n:,} {ending}" for ending, n in endings.most_common())


def from_csv(path: Path) -> ImageSet:
    """Images by the rows of a CSV file: path, label and, if there, group and split.

    path: below the folder of the CSV. label: a name, as `class_name` reads it, or a number.
    group: a context, like the place or the camera. split: train, val, test or final; without it all are
    train. Raises UserError naming file and line, for a path outside the root, a value that is missing and
    an unknown split.
    """
    table = _read_csv(path)
    for column, text in table.items():
        if (text == "").any():
            line = int((text == "").to_numpy().argmax()) + 2
            raise UserError(f"{path}, line {line} has no {column}: give one or leave the row out.")
    rows = []
    for line, row in enumerate(table.to_dict("records"), 2):
        split = row.get("split", "train")
        if split not in SPLITS:
            raise UserError(f"{path}, line {line} has split '{split}': choose one of {', '.join(SPLITS)}.")
        rows.append(
            (safe_path(row["path"], f"{path}, line {line}"), split, row["label"], row.get("group", ""))
        )
    if not any(row[1] == "train" for row in rows):
        raise UserError(f"{path} has no row for training: give some rows split 'train'.")
    return _as_set(path, path.parent, rows, [])


def _read_csv(path: Path) -> pd.DataFrame:
    require_folder(path.parent)
    if not path.is_file():
        raise UserError(
            f"There is no file {path}: give a CSV with the columns path, label[, group][, split]."
        )
    as_text = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig", "index_col": False}
    advice = "write it as UTF-8, with columns path, label[, group][, split] and one row per image"
    table = read_csv(path, advice, ("path", "label"), **as_text)
    columns = [c for c in ("path", "label", "group", "split") if c in table.columns]
    # pandas' name of a second one.
    if twice := [c for c in columns if f"{c}.1" in table.columns]:
        raise UserError(f"{path} has the column '{twice[0]}' twice: remove or rename one.")
    return table[columns]


def _as_set(
    named: Path,
    root: Path,
    rows: list[tuple[str, str, str, str]],
    notes: list[str],
    faults: Iterable[str] = (),
) -> ImageSet:
    """Rows of (path, split, class, context) as a set, with val held out where there is none."""
    classes, contexts = _sorted(row[2] for row in rows), _sorted(row[3] for row in rows)
    require_distinct("classes", classes, named)
    require_distinct("groups", contexts, named)
    names = tuple(map(class_name, classes))
    label = {name: i for i, name in enumerate(classes)}
    context = {name: i for i, name in enumerate(contexts)}
    table = as_table([(path, split, label[y], context[c], path) for path, split, y, c in rows])
    if not (table["split"] == "val").any():
        table, moved = _moved(table, "train", HELD_OUT, "held out", "val")
        notes = [
            *notes,
            f"There is no val: {moved:,} images, {HELD_OUT:.0%} of every class (seed 0), are held out of "
            "train for it; single images stay in train.",
        ]
    return ImageSet(named.resolve().stem, root, table, names, tuple(contexts), tuple(notes), tuple(faults))


def require_distinct(what: str, names: Iterable[str], source: Path) -> None:
    """Raises UserError for names that look alike: but for case, spaces, marks of no width, coded accents."""
    first: dict[str, str] = {}
    for name in names:
        plain = _shown(class_name(name)).casefold()
        other = first.setdefault(" ".join(plain.split()), name)
        if other != name:
            # Of one look on a screen: escapes tell them apart.
            pair = (ascii(other), ascii(name)) if _shown(other) == _shown(name) else (repr(other), repr(name))
            raise UserError(f"{source}: {what} {' and '.join(pair)} have one name: join or rename them.")


def _shown(name: str) -> str:
    """A name as a screen shows it: accents composed, without what has no width (Unicode's category Cf)."""
    return "".join(c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf")


def with_test(found: ImageSet) -> ImageSet:
    """A set whose weak classes can be found on val and reported on other images, its test.

    Where there is none, half of every class and group of val becomes it; single images stay in val. A class
    that is in val but not in test by that gives a training image, if it has two.
    """
    if found.table["split"].isin(("test", "final")).any():
        return found
    table, moved = _moved(found.table, "val", 0.5, "half of val", "test")
    of = {split: set(table["label"][table["split"] == split]) for split in ("val", "test")}
    short = table["label"].isin(of["val"] - of["test"])
    # Of a class, not of its groups: one image is enough to be reported on.
    given, more = _moved(table[short].assign(context=0), "train", 0.0, "to test", "test")
    table["split"] = given["split"].reindex(table.index).fillna(table["split"])
    note = f"There is no test: {moved:,} images of val and {more:,} of train (seed 0) are it."
    return replace(found, table=table, notes=(*found.notes, note))


def _moved(table: pd.DataFrame, split: str, share: float, salt: str, to: str) -> tuple[pd.DataFrame, int]:
    """A stratified share of a split as another: of every class and group round(share * n) but never the last.

    At least one of each; images are drawn by a hash of their path: one more leaves the places of the others.
    """
    moved = []
    for _, group in table[table["split"] == split].groupby(["label", "context"]):
        order = sorted(group.index, key=lambda i: stable_seed(salt, 0, table.at[i, "key"]))
        n = min(len(order) - 1, max(1, int(share * len(order) + 0.5)))
        moved += order[:n]
    return table.assign(split=table["split"].where(~table.index.isin(moved), to)), len(moved)


def _sorted(names: Iterable[str]) -> list[str]:
    """In sorted order, numbers by their value."""
    distinct = set(names)
    if all(name.isdecimal() for name in distinct):
        return sorted(distinct, key=lambda name: (int(name), name))
    return sorted(distinct)


def _folders(folder: Path, hidden: bool = False) -> list[Path]:
    inside = folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in inside if p.is_dir() and p.name.startswith(".") is hidden)


def _files(folder: Path) -> Iterable[Path]:
    """All files at any depth that are not hidden."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))

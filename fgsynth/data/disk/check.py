"""The check of a data set on disk before anything is computed: files, classes, readability, duplicates."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fgsynth.data.benchmark import SPLITS, strata
from fgsynth.data.disk import folders, longtail, nicopp
from fgsynth.data.disk.duplicates import NEAR_BITS, Group, equal_groups, near_groups
from fgsynth.data.disk.examine import Examined, examine_all
from fgsynth.data.disk.image_set import ImageSet
from fgsynth.utils.errors import UserError

FOLDER = "folder"
NAMES = (*longtail.BY_NAME, nicopp.NAME, FOLDER)
SITES = {nicopp.NAME: nicopp.SITE, **{o.name: o.site for o in longtail.BY_NAME.values()}}
SHOWN = 3
"""Examples of each finding."""


@dataclass(frozen=True)
class Report:
    """What a check found, in sentences.

    there: counts by split. problems: what must be put right before a run. warnings: what to look at, and
    to say beside results. notes: what happens with the data.
    """

    name: str
    root: Path
    there: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing stands in the way of a run."""
        return not self.problems

    def require(self) -> None:
        """Raises UserError, with every problem, for a set that is not ready."""
        if not self.ok:
            raise UserError(f"{self.root} is not ready: {' '.join(self.problems)}")

    @property
    def text(self) -> str:
        """The report for a terminal."""
        lines = [f"{self.name} in {self.root}", *(f"  {line}" for line in self.there)]
        titled = {"To put right": self.problems, "To look at": self.warnings, "Notes": self.notes}
        for title, sentences in titled.items():
            if sentences:
                lines += [f"{title}:", *(f"  - {sentence}" for sentence in sentences)]
        n = len(self.problems)
        verdict = "Ready." if self.ok else f"Not ready: {_number(n, 'thing')} to put right."
        return "\n".join([*lines, verdict])


def check_data(name: str, root: Path, splits: Path | None = None) -> Report:
    """Check a data set: every file is looked for and read once; nothing is written.

    name: imagenet_lt, places_lt, nicopp or folder. root: folder of the images (for `folder` also a CSV
    file). splits: folder of split files, by default the root. A mistake in the data is a problem in the
    report; raises UserError for an unknown name only.
    """
    if name not in NAMES:
        raise UserError(f"No data set '{name}': choose one of {', '.join(NAMES)}.")
    try:
        found, warnings = _listed(name, root, splits)
    except UserError as error:
        return Report(name, root, problems=(str(error),))
    problems = list(found.faults)
    if not problems:
        try:
            found.manifest  # noqa: B018
        except UserError as error:
            problems.append(str(error))
    present = found.present()
    problems += _missing(found, present, SITES.get(name))
    table = found.table[present].reset_index(drop=True)
    examined = examine_all([found.root / file for file in table["file"]])
    bad, odd, kinds = _examined(table, examined, fixed=name != FOLDER)
    told = ([*problems, *bad], [*warnings, *odd], [*found.notes, *kinds])
    return Report(name, root, tuple(_counts(found)), *map(tuple, told))


def _listed(name: str, root: Path, splits: Path | None) -> tuple[ImageSet, list[str]]:
    """The set as far as it can be listed, and warnings."""
    if name in longtail.BY_NAME:
        return longtail.survey(longtail.BY_NAME[name], root, splits), []
    if name == FOLDER:
        # As it is used: images that are moved to test are compared with those that stay.
        return folders.with_test(folders.load(root)), []
    drawn = nicopp.draw_split(root)
    written = nicopp.split_file(splits or root, 0)
    if not written.is_file():
        note = f"There is no {written}: the split of seed 0 is looked at, and written when it is first used."
        return replace(drawn, notes=(*drawn.notes, note)), nicopp.differences(drawn)
    found = replace(nicopp.read_split(written, root), faults=drawn.faults)
    warnings = nicopp.differences(found)
    if changed := set(found.table["key"]) ^ set(drawn.table["key"]):
        differ = _number(len(changed), "image")
        warnings.append(f"{written} and the folders differ in {differ} ({min(changed)} is one).")
    return found, warnings


def _counts(found: ImageSet) -> list[str]:
    lines = []
    for split in (s for s in SPLITS if (found.table["split"] == s).any()):
        rows = found.table[found.table["split"] == split]
        each = np.bincount(rows["label"], minlength=len(found.classes))
        there = each[each > 0]
        line = f"{split}: {_number(len(rows), 'image')} of {_number(len(there), 'class', 'classes')}, "
        least = f"{there.min():,} to " if there.min() < there.max() else ""
        line += f"{least}{there.max():,} each"
        if split == "train":
            kinds = strata(there).tolist()
            line += f" ({', '.join(f'{kinds.count(k)} {k}' for k in ('many', 'medium', 'few'))})"
        if len(found.contexts) > 1:
            groups = rows.groupby(["label", "context"]).ngroups
            line += f", in {groups} of {len(found.classes) * len(found.contexts)} groups"
        lines.append(line)
    return lines


def _missing(found: ImageSet, present: NDArray[np.bool_], site: str | None) -> list[str]:
    """One sentence per split, whatever the number of images."""
    absent = found.table[~present]
    get = f"get them from {site}" if site else "restore them, or take them off the list"
    sentences = []
    for split in (s for s in SPLITS if (absent["split"] == s).any()):
        files, n = absent["file"][absent["split"] == split], (found.table["split"] == split).sum()
        some = "all" if len(files) == n else f"{len(files):,} of"
        sentences.append(
            f"{split}: {some} {n:,} images are missing below {found.root}, like {files.iloc[0]}: {get}."
        )
    return sentences


def _examined(
    table: pd.DataFrame, examined: list[Examined], fixed: bool
) -> tuple[list[str], list[str], list[str]]:
    """Problems, warnings and notes of what reading found.

    fixed: the split is a published one, its duplicates are not to be mended.
    """
    bad = [f"{file} {e.fault}" for file, e in zip(table["file"], examined, strict=True) if e.fault]
    problems = []
    if bad:
        problems.append(
            f"{_number(len(bad), 'image')} cannot be read: {_first(bad)}: replace or remove them."
        )
    kinds = pd.Series([e.kind for e in examined if e.kind], dtype=str).value_counts()
    notes = []
    if len(kinds):
        shares = ", ".join(f"{n:,} {kind}" for kind, n in kinds.items())
        notes.append(f"Images that are not plain RGB are made so whenever they are read: {shares}.")
    good = np.flatnonzero([not e.fault for e in examined])
    shown = table.iloc[good].reset_index(drop=True)
    digests = [examined[i].sha256 for i in good]
    hashes = np.array([examined[i].dhash for i in good], dtype=np.uint64).reshape(-1, 2)
    leaks, others = _duplicates(shown, digests, hashes)
    return (problems, [*leaks, *others], notes) if fixed else ([*problems, *leaks], others, notes)


def _duplicates(
    table: pd.DataFrame, digests: list[bytes], hashes: NDArray[np.uint64]
) -> tuple[list[str], list[str]]:
    """Sentences on equal images in two splits or classes, and on the other duplicates."""

    def several(group: Group, column: str) -> bool:
        return table[column].iloc[group].nunique() > 1

    def named(group: Group) -> str:
        rows = table.iloc[group]
        if several(group, "split"):
            first = rows.drop_duplicates("split")
            return " = ".join(
                f"{file} ({split})" for file, split in zip(first["file"], first["split"], strict=True)
            )
        return " = ".join(rows["file"].iloc[:SHOWN])

    def listed(groups: list[Group], what: str) -> list[str]:
        names = [named(group) for group in groups]
        return [f"{_number(len(groups), 'image')} {what}: {_first(names)}."] if groups else []

    equal = equal_groups(digests)
    splits = [g for g in equal if several(g, "split")]
    classes = [g for g in equal if several(g, "label")]
    inside = [g for g in equal if not several(g, "split") and not several(g, "label")]
    near = [g for g in near_groups(hashes) if len({digests[i] for i in g}) > 1]
    across = [g for g in near if several(g, "split")]
    within = [g for g in near if not several(g, "split")]
    alike = f"(difference hashes within {NEAR_BITS} of 64 bits; see whether they are copies)"
    leaks = listed(splits, "in more than one split, byte by byte; keep one of the files")
    leaks += listed(classes, "in more than one class, byte by byte; keep it in the right one")
    others = listed(inside, "more than once in a class, byte by byte")
    others += listed(across, f"with others alike in another split {alike}")
    return leaks, others + listed(within, f"with others alike in the same split {alike}")


def _number(n: int, one: str, more: str = "") -> str:
    return f"{n:,} {one if n == 1 else more or one + 's'}"


def _first(names: Iterable[str]) -> str:
    """Some of many, and how many more there are."""
    every = list(names)
    more = len(every) - SHOWN
    return ", ".join(every[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")

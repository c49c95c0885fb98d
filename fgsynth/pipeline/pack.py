"""An archive of a scale for others: synthetic sets, classifiers trained on them, the ledger, a datasheet."""

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgsynth.config import names
from fgsynth.config.params import load
from fgsynth.data.sources import fingerprint
from fgsynth.evidence import page
from fgsynth.experiments import steps
from fgsynth.experiments.experiment import Experiment
from fgsynth.generate.methods import sets
from fgsynth.generate.synthetic_set import SyntheticSet
from fgsynth.train.run_folder import EPOCHS, NETWORK, RECIPE, finished
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import atomic, file_name, read_json, root

REAL = "real images alone"
REPORTS = ("LICENSE", "reports/ledger.csv", "reports/order.csv", "reports/results.csv", "reports/pieces.csv")


@dataclass(frozen=True)
class Part:
    """A set or a classifier: the folder of its files in the archive, the files, a line of the datasheet."""

    folder: str
    files: tuple[Path, ...]
    line: str


def run(targets: Sequence[str], scale: str | None, folder: Path) -> str:
    """Write fgsynth-SCALE.tar: sets as WebDataset tars with Parquet indices, classifiers, ledger, datasheet.

    targets: stages that make sets, or draws of them (imagenet_lt_2); if empty the three benchmarks. scale:
    else that of params.yaml. A set that is not there is made. The same files give the same bytes. Returns
    what the archive holds. Raises UserError for a stage without sets and for scale smoke.
    """
    at = load(root() / "params.yaml").at(scale)
    if at.scale == "smoke":
        raise UserError("Scale 'smoke' lives in the notebooks' own cells: pack mini, evening or paper.")
    parts = []
    for target in targets or names.BENCHMARKS:
        stage, benchmark, draw = names.target(target)
        if benchmark or stage not in names.BENCHMARKS:
            choice = ", ".join(names.BENCHMARKS)
            raise UserError(f"'{target}' makes no synthetic sets to pack: choose of {choice}.")
        parts += [*_parts(target, draw or 0, at.scale, at.overrides(stage))]
    lines = [part.line for part in parts]
    sheet = page.render("datasheet.md", scale=at.scale, lines=lines)
    archive = folder / f"fgsynth-{at.scale}.tar"
    with atomic(archive) as partial, tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, "DATASHEET.md", sheet.encode())
        for name in REPORTS:
            _add(tar, Path(name).name, (root() / name).read_bytes())
        for part in parts:
            for path in part.files:
                _add(tar, f"{part.folder}/{path.name}", path.read_bytes())
    return "\n".join([*lines, f"{archive}: {archive.stat().st_size / 2**20:.1f} MiB"])


def _parts(target: str, draw: int, scale: str, block: Mapping[str, Any]) -> Iterator[Part]:
    """The sets of a stage's notebook and the classifiers trained on them or on real images alone."""
    stage = names.target(target).stage
    world, sampling, training, work = (block[key] for key in ("world", "sampling", "training", "work"))
    exp = steps.load(stage, scale, world, sampling, training, work, draw)
    real = {grouped: fingerprint(exp.real, grouped) for grouped in (False, True)}
    trained_on: dict[tuple[str, str | None], str] = {(digest, None): REAL for digest in real.values()}
    for name, (method, whole) in sets(stage, block, exp.sampling).items():
        store, made_by = exp.complete(method, whole)
        files = tuple(path for number in range(len(store.parts())) for path in store.files(number))
        folder = f"{target}/sets/{file_name(name)}"
        yield Part(folder, files, f"{target}: set {name}, {len(store.plan)} images")
        made = SyntheticSet.of(store, made_by).images
        trained_on |= {(real[grouped], fingerprint(made, grouped)): name for grouped in real}
    yield from _classifiers(exp, target, trained_on)


def _classifiers(
    exp: Experiment, target: str, trained_on: Mapping[tuple[str, str | None], str]
) -> Iterator[Part]:
    """The trainings that are kept of the benchmark; trained_on: names of images by their fingerprints."""
    folders = exp.work / exp.bench.manifest.folder / "classifiers"
    for folder in sorted(path for path in folders.glob("*") if finished(path)):
        recipe = read_json(folder / RECIPE)
        name = trained_on.get((recipe["images"]["real"], recipe["images"]["synthetic"]))
        if name is not None:
            files = tuple(folder / file for file in (RECIPE, EPOCHS, NETWORK))
            where = f"{target}/classifiers/{file_name(name)}/{folder.name}"
            yield Part(where, files, f"{target}: classifier on {name}, seed {recipe['seed']}")


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file of nobody's, at no time."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))

"""The digests of the benchmarks at every scale, written down once and compared at the start of every run."""

import json
from pathlib import Path

from fgsynth.config import params
from fgsynth.config.stages import NOTEBOOKS
from fgsynth.data.benchmark import DIGESTS
from fgsynth.data.registry import WORLDS
from fgsynth.pipeline import notebook
from fgsynth.utils import paths


def digests(root: Path) -> str:
    """JSON, benchmark -> scale -> digest, from the notebooks' own cells and params.yaml.

    Of the mini world's draws: real sets are held by the digests of their lists, compared where they are read.
    """
    given = params.load(root / "params.yaml")
    found: dict[str, dict[str, str]] = {}
    for name, (settings, draw) in WORLDS.items():
        path = root / "notebooks" / f"{NOTEBOOKS[name]}.ipynb"
        smoke = notebook.parameters(notebook.clean(notebook.read(path)), path)["world"]
        worlds = {
            "smoke": settings.model_validate(smoke),
            "mini": getattr(given.mini, name).world,
            "evening": getattr(given.evening, name).world,
        }
        found[name] = {scale: draw(world).manifest.digest for scale, world in worlds.items()}
    return json.dumps(found, indent=2, sort_keys=True) + "\n"


def write(root: Path) -> None:
    """Write them down in data/splits/digests.json."""
    paths.write_text(root / DIGESTS, digests(root))

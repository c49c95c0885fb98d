"""Where the mini unCLIP lies, and what lies in its folder beside what diffusers reads."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from fgsynth.utils.errors import missing

FOLDER = Path("data/pretrained/mini-unclip")
CARD, SCORES = FOLDER.parent / "README.md", FOLDER.parent / "scores.json"
JUDGE, PROJECTION, TRAINING = "judge.safetensors", "text_projection.safetensors", "training.json"


def text_projection(folder: Path) -> Tensor:
    """CLIP's text projection, (width, width), which unCLIP's own folder has no room for."""
    if not (folder / PROJECTION).is_file():
        raise missing(folder / PROJECTION)
    return load_file(folder / PROJECTION)["weight"].float()

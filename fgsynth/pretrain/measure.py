"""The stage `model_card`: measure the mini unCLIP and describe it."""

import json
from pathlib import Path

from fgsynth.generate.generator import Generator
from fgsynth.miniworld import judge
from fgsynth.pretrain.card import card
from fgsynth.pretrain.files import CARD, FOLDER, JUDGE, SCORES, TRAINING, text_projection
from fgsynth.pretrain.scores import scores
from fgsynth.utils.errors import missing
from fgsynth.utils.paths import write_text


def model_card(root: Path) -> None:
    """Measures the mini unCLIP and writes its scores and its model card."""
    folder = root / FOLDER
    if not (folder / TRAINING).is_file():
        raise missing(folder / TRAINING)
    record = json.loads((folder / TRAINING).read_text(encoding="utf-8"))
    measured = scores(Generator.load(folder), judge.load(folder / JUDGE), text_projection(folder))
    write_text(root / SCORES, json.dumps(measured, indent=2))
    write_text(root / CARD, card(record, measured))

"""The stages `pretrain` and `model_card`: train the mini unCLIP; measure and describe it."""

import json
import platform
import shutil
import time
from pathlib import Path

import torch

from fgsynth import params
from fgsynth.generator import Generator
from fgsynth.miniworld import judge
from fgsynth.paths import write_text
from fgsynth.pretrain.card import card
from fgsynth.pretrain.folder import JUDGE, TRAINING, Trained, save, text_projection
from fgsynth.pretrain.scores import scores
from fgsynth.pretrain.train import Trainer

FOLDER = Path("data/pretrained/mini-unclip")
WORK = Path("data/runs/pretrain")


def pretrain(root: Path, device: str | None = None) -> None:
    """Trains every part of the mini unCLIP by the recipe in params.yaml and publishes the folder whole.

    A stopped run goes on from its last checkpoints in data/runs/pretrain.
    """
    recipe = params.load(root / "params.yaml").pretrain
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    started = time.monotonic()
    trainer = Trainer(recipe, root / WORK, device)
    reader, features = trainer.readers()
    vae = trainer.autoencoder(features)
    clip, tokens = trainer.clip()
    data = trainer.encode(vae, clip, tokens)
    unet = trainer.denoiser(data)
    record = {
        "recipe": recipe.model_dump(),
        "losses": trainer.losses,
        "seconds": round(time.monotonic() - started),
        "hardware": torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU",
        "torch": torch.__version__,
    }
    parts = (clip, vae, unet, reader)
    staging = root / WORK / "folder"
    shutil.rmtree(staging, ignore_errors=True)
    for part in parts:
        torch.nn.Module.to(part, "cpu")
    save(Trained(clip, tokens, vae, unet, data.images, reader, record), staging)
    shutil.rmtree(root / FOLDER, ignore_errors=True)
    (root / FOLDER).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(staging, root / FOLDER)


def model_card(root: Path) -> None:
    """Measures the committed mini unCLIP and writes scores.json and the model card, README.md."""
    folder = root / FOLDER
    generator = Generator.load(folder)
    measured = scores(generator, judge.load(folder / JUDGE), text_projection(folder))
    record = json.loads((folder / TRAINING).read_text(encoding="utf-8"))
    write_text(folder / "scores.json", json.dumps(measured, indent=2) + "\n")
    write_text(folder / "README.md", card(record, measured))

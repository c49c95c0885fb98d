"""The stage `pretrain`: train the mini unCLIP and publish its folder whole."""

import platform
import shutil
from dataclasses import asdict
from pathlib import Path

import torch

from fgsynth.config import params
from fgsynth.pretrain.files import FOLDER
from fgsynth.pretrain.folder import Trained, save
from fgsynth.pretrain.train import Trainer

WORK = Path("data/runs/pretrain")


def pretrain(root: Path, device: str | None = None) -> None:
    """Trains every part of the mini unCLIP by the recipe in params.yaml and publishes the folder whole.

    A stopped run goes on from its last checkpoints in data/runs/pretrain, which a finished one deletes.
    Raises UserError where these are of another recipe.
    """
    recipe = params.load(root / "params.yaml").pretrain
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(recipe, root / WORK, device)
    reader, features = trainer.readers()
    vae = trainer.autoencoder(features)
    clip, tokens = trainer.clip()
    data = trainer.encode(vae, clip, tokens)
    unet = trainer.denoiser(data)
    record = {
        "recipe": recipe.model_dump(),
        "parts": {name: asdict(history) for name, history in trainer.history.items()},
        "hardware": torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    parts: list[torch.nn.Module] = [clip, vae, unet, reader]
    for part in parts:
        part.to("cpu")
    staging = root / WORK / "folder"
    shutil.rmtree(staging, ignore_errors=True)
    save(Trained(clip, tokens, vae, unet, data.images, reader, record), staging)
    shutil.rmtree(root / FOLDER, ignore_errors=True)
    (root / FOLDER).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(staging, root / FOLDER)
    shutil.rmtree(root / WORK)

"""An early generator: the mini unCLIP with a denoiser that was trained for a fraction of the time."""

import json
from copy import copy
from pathlib import Path
from typing import Any

import torch

from fgsynth.config.params import Conditioning, Training
from fgsynth.generate.generator import Generator
from fgsynth.pretrain.corpus import Siblings, web
from fgsynth.pretrain.loop import train
from fgsynth.pretrain.unet import DenoisingLoss, Encoded, denoiser
from fgsynth.pretrain.vae import latents
from fgsynth.utils.cache import fingerprint, weights_digest
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import write_text
from fgsynth.utils.seeds import stable_seed


def early(
    generator: Generator, plan: Training, conditioning: Conditioning, images: int, work: Path
) -> Generator:
    """Train a fresh denoiser by `plan`, on that many images of the web, beside the same autoencoder and CLIP.

    work: for checkpoints; a stopped training goes on from there. Raises UserError where work has one of
    another recipe.
    """
    others = [
        weights_digest(generator.pipe.components[name]) for name in ("vae", "image_encoder", "text_encoder")
    ]
    code = fingerprint(("data", "miniworld", "models", "pretrain", "utils/seeds"))
    _same_recipe(work, [plan.model_dump(), images, conditioning.model_dump(), others, code])
    corpus = web(images)
    distinct = sorted({"", *corpus.captions})
    row = {caption: i for i, caption in enumerate(distinct)}
    shown = list(corpus.images.permute(0, 2, 3, 1))
    data = Encoded(
        latents(generator.pipe.vae, corpus) * generator.pipe.vae.config.scaling_factor,
        generator.clip_embedding(shown),
        generator.embed_text(distinct),
        torch.tensor([row[caption] for caption in corpus.captions]),
        row[""],
        Siblings(corpus.factors),
    )
    with torch.random.fork_rng():
        torch.manual_seed(stable_seed("early denoiser"))
        unet = denoiser()
    unet.to(memory_format=torch.channels_last)
    train(unet, DenoisingLoss(unet, data, conditioning), len(corpus.captions), plan, work / "early.pt")
    parts = {**generator.pipe.components, "unet": unet.requires_grad_(False)}
    return Generator(type(generator.pipe)(**parts), copy(generator.schedule))


def _same_recipe(work: Path, parts: list[Any]) -> None:
    """Neither the early generator nor images by it are found again by what it was trained with."""
    file, recipe = work / "early.json", json.dumps(parts, indent=1) + "\n"
    if file.is_file() and file.read_text(encoding="utf-8") != recipe:
        raise UserError(
            f"{work} holds an early generator of another recipe: restore `feedback_map` and "
            "`pretrain.conditioning` in params.yaml or delete that folder."
        )
    write_text(file, recipe)

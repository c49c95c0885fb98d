"""An early generator: the mini unCLIP with a denoiser that was trained for a fraction of the time."""

from copy import copy
from pathlib import Path

import torch

from fgsynth.config.params import Conditioning, Training
from fgsynth.generate.generator import Generator
from fgsynth.pretrain.corpus import Siblings, web
from fgsynth.pretrain.loop import train
from fgsynth.pretrain.unet import DenoisingLoss, Encoded, denoiser
from fgsynth.pretrain.vae import latents
from fgsynth.utils.seeds import stable_seed


def early(
    generator: Generator, plan: Training, conditioning: Conditioning, images: int, work: Path
) -> Generator:
    """The same autoencoder and CLIP with a fresh denoiser after `plan`, on that many images of the web.

    work: for checkpoints; a stopped training goes on from there.
    """
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

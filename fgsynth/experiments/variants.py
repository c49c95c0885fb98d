"""Variants of the mini unCLIP: trained for a fraction of the time, or on a web of one-sided appearances."""

from copy import copy, deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from fgsynth.config.params import Conditioning, Denoisers
from fgsynth.generate.generator import Generator
from fgsynth.miniworld.world import WEB
from fgsynth.pretrain.corpus import Siblings, draw_corpus, web
from fgsynth.pretrain.loop import train
from fgsynth.pretrain.unet import DenoisingLoss, Encoded, denoiser
from fgsynth.pretrain.vae import latents
from fgsynth.utils.cache import fingerprint, weights_digest
from fgsynth.utils.seeds import stable_seed

Name = Literal["early", "one-sided"]
VARIANTS: tuple[Name, ...] = ("early", "one-sided")
ONE_SIDED = replace(WEB, modes=(0.9, 0.04, 0.03, 0.03))
"""A web that shows a thing nearly always in one appearance: limited diversity, the premise of FG."""


def variant(
    generator: Generator, name: Name, plan: Denoisers, conditioning: Conditioning, work: Path
) -> Generator:
    """Train another denoiser by `plan`, beside the same autoencoder and CLIP.

    "early": a fresh one, on the web; "one-sided": the generator's own, tuned on `ONE_SIDED`. work: a folder
    of checkpoints under fingerprints; a stopped training goes on from there.
    """
    corpus = web(plan.images) if name == "early" else draw_corpus(plan.images, "one-sided web", ONE_SIDED)
    distinct = sorted({"", *corpus.captions})
    row = {caption: i for i, caption in enumerate(distinct)}
    parts = generator.pipe.components
    digests = [weights_digest(parts[one]) for one in ("vae", "image_encoder", "text_encoder", "unet")]
    code = ("data", "miniworld", "models", "pretrain", "utils/seeds", "experiments/variants")
    folder = work / fingerprint(code, plan.model_dump(), conditioning.model_dump(), digests)
    data = Encoded(
        latents(generator.pipe.vae, corpus) * generator.pipe.vae.config.scaling_factor,
        generator.clip_embedding(list(corpus.images.permute(0, 2, 3, 1))),
        generator.embed_text(distinct),
        torch.tensor([row[caption] for caption in corpus.captions]),
        row[""],
        Siblings(corpus.factors),
    )
    with torch.random.fork_rng():
        torch.manual_seed(stable_seed("early denoiser"))
        unet = denoiser() if name == "early" else deepcopy(parts["unet"]).requires_grad_(True)
    unet.to(memory_format=torch.channels_last)
    train(unet, DenoisingLoss(unet, data, conditioning), len(corpus.captions), plan, folder / f"{name}.pt")
    return Generator(
        type(generator.pipe)(**{**parts, "unet": unet.requires_grad_(False)}), copy(generator.schedule)
    )

"""Families of generators: a diffusers pipeline of a known kind, from a folder or the hub, safetensors only.

Two families fit `Generator`: Stable unCLIP, and Stable Diffusion 1.x and 2.x, which take text only. SDXL with
IP-Adapter does not: its text condition is a pair of tensors, its denoiser takes image sizes besides, and its
image condition goes through attention layers of its own.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, StableUnCLIPImg2ImgPipeline
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.utils import logging as transformers_logging

from fgsynth.utils.errors import UserError

MIRROR = "sd2-community/stable-diffusion-2-1-unclip"
"""Mirror of the paper's model, which its maker withdrew from the hub."""
WITHDRAWN = {
    "stabilityai/stable-diffusion-2-1-unclip": MIRROR,
    "stabilityai/stable-diffusion-2-1-unclip-small": f"{MIRROR}-small",
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}
"""Hub ids that are gone, and the mirrors of their models."""
FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "StableUnCLIPImg2ImgPipeline": (StableUnCLIPImg2ImgPipeline, {}),
    # The safety filter looks at the images of the pipeline's own call, which is never used.
    "StableDiffusionPipeline": (
        StableDiffusionPipeline,
        {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    ),
}
"""Pipeline class by the name in model_index.json, and the parts that are not loaded."""


def pipeline(model: str | Path, revision: str | None, dtype: torch.dtype) -> Any:
    """Load the pipeline of a folder or hub id, of the family that its model_index.json names.

    `dtype` is of all parts but the autoencoder. Raises UserError where there is no such model, for another
    family, for weights that are pickles and for a model that brings its own code.
    """
    folder = Path(model)
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise UserError(f"{folder} is not a diffusers model: it has no model_index.json.")
    local = folder.is_dir()
    with _one_sentence_errors(model):
        index = StableUnCLIPImg2ImgPipeline.load_config(str(model), revision=revision, local_files_only=local)
    name = index.get("_class_name")
    if not isinstance(name, str) or name not in FAMILIES:
        raise UserError(
            f"The model '{model}' is a {name}: set the parameter `generator` to a {' or a '.join(FAMILIES)}."
        )
    family, unread = FAMILIES[name]
    if local:
        _refuse_pickles(folder, unread)
    # Loading takes a second; a download takes minutes and shows its bars.
    with _one_sentence_errors(model), _without_bars() if local else nullcontext():
        return family.from_pretrained(
            str(model),
            revision=revision,
            # Read as float32 at once: what has been rounded to half precision stays rounded.
            dtype={"vae": torch.float32, "default": dtype},
            use_safetensors=True,
            local_files_only=local,
            **unread,
        )


def tiny_decoder(model: str | Path, channels: int) -> AutoencoderTiny:
    """Load a tiny autoencoder, such as TAESD, from a folder or a hub id, in float32.

    Raises UserError where it cannot be loaded, and where its latents have other than `channels` channels.
    """
    local = Path(model).is_dir()
    with _one_sentence_errors(model), _without_bars() if local else nullcontext():
        tiny = AutoencoderTiny.from_pretrained(str(model), use_safetensors=True, local_files_only=local)
    if tiny.config.latent_channels != channels:
        raise UserError(
            f"The tiny decoder '{model}' takes latents of {tiny.config.latent_channels} channels, the "
            f"generator's have {channels}: choose one made for it, such as 'madebyollin/taesd'."
        )
    return tiny


def checkpoint_each(decoder: nn.Module) -> None:
    """Checkpoint every residual block and upsampling of a decoder (Chen et al. 2016).

    Finer than diffusers' own checkpoints, one per size of image: computing a whole size again takes 2 GiB
    more at 768 pixels (fgsynth.cost.true_counts), and computes its attention twice.
    """
    for part in decoder.modules():
        if isinstance(part, (ResnetBlock2D, Upsample2D)):
            part.forward = partial(checkpoint, part.forward, use_reentrant=False)


def _refuse_pickles(folder: Path, unread: Collection[str]) -> None:
    for part in sorted({path.parent for path in folder.rglob("*.bin")}):
        if part.name not in unread and not any(part.glob("*.safetensors")):
            raise UserError(
                f"{part} holds its weights as a pickle, which can run code when it is read: save the model "
                "with safe_serialization=True."
            )


@contextmanager
def _one_sentence_errors(model: str | Path) -> Iterator[None]:
    """Turn what the libraries raise for a model that cannot be loaded into a UserError."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        hint = f"Stable unCLIP 2-1, withdrawn by its maker, is held by the mirror '{MIRROR}'"
        if str(model) in WITHDRAWN:
            hint = f"its maker withdrew it from the hub, and the mirror '{WITHDRAWN[str(model)]}' holds it"
        raise UserError(
            f"The model '{model}' cannot be loaded ({reason}); {hint}: set the parameter `generator` to an "
            "id that the hub has, or to a local folder."
        ) from error


@contextmanager
def _without_bars() -> Iterator[None]:
    """Silence the progress bars of diffusers and transformers within the block."""
    loud = [part for part in (diffusers_logging, transformers_logging) if part.is_progress_bar_enabled()]
    for part in loud:
        part.disable_progress_bar()
    try:
        yield
    finally:
        for part in loud:
            part.enable_progress_bar()

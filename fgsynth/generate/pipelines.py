"""Families of generators: a diffusers pipeline of a known kind, from a folder or the hub, safetensors only.

Two families fit `Generator`: Stable unCLIP, and Stable Diffusion 1.x and 2.x, which take text only. SDXL with
IP-Adapter does not: its text condition is a pair of tensors, its denoiser takes image sizes besides, and its
image condition goes through attention layers of its own.
"""

import inspect
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, StableUnCLIPImg2ImgPipeline
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.utils.checkpoint import checkpoint

from fgsynth.models.loading import WHOLE, check_files, loading, local_folder
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
    family, for parts that are missing, damaged or of different models, for weights that are pickles and for a
    model that brings its own code.
    """
    folder = local_folder(model)
    name = model if folder is None else folder
    options = {"revision": revision, "local_files_only": folder is not None}
    if folder and not (folder / "model_index.json").is_file():
        raise UserError(f"{folder} is not a diffusers model: it has no model_index.json.")
    unread = {key for _, left_out in FAMILIES.values() for key in left_out}
    if folder:
        check_files(folder, unread)
    with loading("The model", name, _advice(name)):
        index = StableUnCLIPImg2ImgPipeline.load_config(str(name), **options)
        kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UserError(
            f"The model '{name}' is a {kind}: set the parameter `generator` to a {' or a '.join(FAMILIES)}."
        )
    family, left_out = FAMILIES[kind]
    _check_parts(name, index, family, left_out)
    # Read as float32 at once: what has been rounded to half precision stays rounded.
    types = {"vae": torch.float32, "default": dtype}
    with loading("The model", name, _advice(name)):
        pipe = family.from_pretrained(str(name), dtype=types, use_safetensors=True, **options, **left_out)
        _check_fit(pipe)
    return pipe


def _check_parts(model: str | Path, index: dict[str, Any], family: Any, left_out: dict[str, Any]) -> None:
    """Compare the parts that a pipeline needs with those of its index and, in a folder, those there."""
    for name, given in inspect.signature(family.__init__).parameters.items():
        if name == "self" or name in left_out or given.default is not inspect.Parameter.empty:
            continue
        listed = isinstance(index.get(name), list) and bool(index[name]) and index[name][0] is not None
        if not listed or (isinstance(model, Path) and not (model / name).is_dir()):
            raise UserError(f"The model '{model}' has no {name}, which a {family.__name__} needs: {WHOLE}.")


def _check_fit(pipe: Any) -> None:
    """Compare the sizes in which a pipeline's parts meet. Raises ValueError where they are of two models."""
    denoiser, text = pipe.unet.config, pipe.text_encoder.config
    meet = {
        "the text's width": (text.hidden_size, denoiser.cross_attention_dim),
        "the latents' channels": (pipe.vae.config.latent_channels, denoiser.in_channels),
    }
    if encoder := getattr(pipe, "image_encoder", None):
        width = denoiser.projection_class_embeddings_input_dim
        meet["twice the image embedding's width"] = (2 * encoder.config.projection_dim, width)
    if not isinstance(denoiser.sample_size, int):
        raise ValueError(f"its denoiser's sample_size is {denoiser.sample_size!r}, not one whole number")
    for what, (given, taken) in meet.items():
        if given != taken:
            raise ValueError(f"{what} is {given}, its denoiser takes {taken}")
    known = len(pipe.tokenizer)
    # A tokenizer without files is made of its marks alone, and every word is unknown to it.
    if not len(pipe.tokenizer.all_special_tokens) < known <= text.vocab_size:
        raise ValueError(f"its tokenizer has {known} tokens, its text encoder takes {text.vocab_size}")


def _advice(model: str | Path) -> str:
    if isinstance(model, Path):
        return WHOLE
    if model in WITHDRAWN:
        return f"its maker withdrew it from the hub, and the mirror '{WITHDRAWN[model]}' holds it"
    return f"set the parameter `generator` to an id that the hub has, such as '{MIRROR}', or to a folder"


def tiny_decoder(model: str | Path, channels: int) -> AutoencoderTiny:
    """Load a tiny autoencoder, such as TAESD, from a folder or a hub id, in float32.

    Raises UserError where it cannot be loaded, for another kind of model, and where its latents have other
    than `channels` channels.
    """
    folder = local_folder(model)
    name, local, made = str(folder or model), folder is not None, "choose one such as 'madebyollin/taesd'"
    if folder:
        check_files(folder)
    with loading("The tiny decoder", name, made):
        kind = AutoencoderTiny.load_config(name, local_files_only=local).get("_class_name")
        if kind != "AutoencoderTiny":
            raise ValueError(f"it is of class {kind}, not AutoencoderTiny")
        tiny = AutoencoderTiny.from_pretrained(name, use_safetensors=True, local_files_only=local)
    if tiny.config.latent_channels != channels:
        raise UserError(
            f"The tiny decoder '{name}' takes latents of {tiny.config.latent_channels} channels, the "
            f"generator's have {channels}: choose one made for it."
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

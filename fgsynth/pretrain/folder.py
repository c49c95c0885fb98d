"""The mini unCLIP as a folder that diffusers loads, with its judge and what its card needs beside it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableUnCLIPImg2ImgPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from fgsynth.models.clip import PROJECTION
from fgsynth.models.networks import Classifier
from fgsynth.pretrain.clip import processor
from fgsynth.pretrain.files import JUDGE, TRAINING
from fgsynth.pretrain.unet import noising_scheduler, normaliser, scheduler


@dataclass(frozen=True)
class Trained:
    """All that training leaves: the networks, the web's image embeddings (n, width), and its record."""

    clip: CLIPModel
    tokens: CLIPTokenizer
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    images: Tensor
    judge: Classifier
    record: dict[str, Any]


def pipeline(trained: Trained) -> StableUnCLIPImg2ImgPipeline:
    """The trained parts put together."""
    clip: Any = trained.clip  # its configuration's parts are typed too widely
    text = CLIPTextModel(clip.config.text_config)
    text.load_state_dict(clip.text_model.state_dict())
    vision = CLIPVisionModelWithProjection(clip.config.vision_config)
    seeing = {f"vision_model.{name}": p for name, p in clip.vision_model.state_dict().items()}
    vision.load_state_dict({**seeing, "visual_projection.weight": clip.visual_projection.weight})
    return StableUnCLIPImg2ImgPipeline(
        feature_extractor=processor(),
        image_encoder=vision.eval(),
        image_normalizer=normaliser(trained.images),
        image_noising_scheduler=noising_scheduler(),
        tokenizer=trained.tokens,
        text_encoder=text.eval(),
        unet=trained.unet.eval(),
        scheduler=scheduler(),
        vae=trained.vae.eval(),
    )


def save(trained: Trained, folder: Path) -> None:
    """Write the folder in half precision, safetensors only."""
    pipeline(trained).to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)
    for part in ("text_encoder", "image_encoder"):
        # Transformers loads in the precision that its configuration names, diffusers in float32.
        file = folder / part / "config.json"
        file.write_text(file.read_text(encoding="utf-8").replace('"float16"', '"float32"'), encoding="utf-8")
    judge = {name: p.half() if p.is_floating_point() else p for name, p in trained.judge.state_dict().items()}
    save_file({name: p.contiguous().cpu() for name, p in judge.items()}, folder / JUDGE)
    projection = trained.clip.text_projection.weight.detach().half().cpu().contiguous()
    save_file({"weight": projection}, folder / PROJECTION)
    (folder / TRAINING).write_text(json.dumps(trained.record, indent=2) + "\n", encoding="utf-8")

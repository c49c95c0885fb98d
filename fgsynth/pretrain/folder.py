"""The mini unCLIP as a folder that diffusers' StableUnCLIPImg2ImgPipeline loads."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableUnCLIPImg2ImgPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from fgsynth.pretrain.clip import processor
from fgsynth.pretrain.unet import noising_scheduler, normaliser, scheduler


def pipeline(
    clip: CLIPModel, tokens: CLIPTokenizer, vae: AutoencoderKL, unet: UNet2DConditionModel, images: Tensor
) -> StableUnCLIPImg2ImgPipeline:
    """The trained parts put together; images: the web's image embeddings (n, width)."""
    text = CLIPTextModel(clip.config.text_config)
    text.load_state_dict(clip.text_model.state_dict())
    vision = CLIPVisionModelWithProjection(clip.config.vision_config)
    vision.load_state_dict(
        {
            **{f"vision_model.{k}": v for k, v in clip.vision_model.state_dict().items()},
            "visual_projection.weight": clip.visual_projection.weight,
        }
    )
    return StableUnCLIPImg2ImgPipeline(
        feature_extractor=processor(),
        image_encoder=vision.eval(),
        image_normalizer=normaliser(images),
        image_noising_scheduler=noising_scheduler(),
        tokenizer=tokens,
        text_encoder=text.eval(),
        unet=unet.eval(),
        scheduler=scheduler(),
        vae=vae.eval(),
    )


def save(pipe: StableUnCLIPImg2ImgPipeline, folder: Path) -> None:
    """Saves in half precision, safetensors only."""
    pipe.to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)

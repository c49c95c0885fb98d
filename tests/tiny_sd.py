"""A random Stable Diffusion 1.5 in small: every part of the original's configuration, few channels."""

from pathlib import Path

import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tiny_unclip import WIDTH, autoencoder, text_config, words
from transformers import CLIPTextModel


def save(folder: Path) -> Path:
    torch.manual_seed(0)
    tokens = words()
    pipe = StableDiffusionPipeline(
        tokenizer=tokens,
        text_encoder=CLIPTextModel(text_config(tokens)).eval(),
        unet=UNet2DConditionModel(
            sample_size=8,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            block_out_channels=(32, 32, 64, 64),
            layers_per_block=2,
            attention_head_dim=4,
            norm_num_groups=8,
            cross_attention_dim=WIDTH,
        ).eval(),
        # As in the original's file: a scheduler with memory, and no word about what the network predicts.
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
            steps_offset=1,
        ),
        vae=autoencoder(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(folder)
    return folder

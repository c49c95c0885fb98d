"""A random Stable Diffusion 1.5 in small: every part of the original's configuration, few channels."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from fgsynth.pretrain.clip import tokenizer

WIDTH = 32


def save(folder: Path) -> Path:
    torch.manual_seed(0)
    tokens = tokenizer(["apple banana car in water"])
    tokens.model_max_length = 77
    text = CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=77, projection_dim=WIDTH,
        eos_token_id=tokens.eos_token_id, bos_token_id=tokens.bos_token_id, pad_token_id=tokens.eos_token_id,
    )  # fmt: skip
    pipe = StableDiffusionPipeline(
        tokenizer=tokens,
        text_encoder=CLIPTextModel(text).eval(),
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
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(32, 32, 32, 32),
            sample_size=64,
        ).eval(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipe.save_pretrained(folder)
    return folder

"""A random Stable unCLIP 2-1 in small: every part of the original's configuration, few channels."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    PNDMScheduler,
    StableUnCLIPImg2ImgPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from fgsynth.pretrain.clip import tokenizer

WIDTH = 32


def words():
    tokens = tokenizer(["apple banana car in water"])
    tokens.model_max_length = 77
    return tokens


def text_config(tokens, **more):
    return CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=77, projection_dim=WIDTH,
        eos_token_id=tokens.eos_token_id, bos_token_id=tokens.bos_token_id, pad_token_id=tokens.eos_token_id,
        **more,
    )  # fmt: skip


def autoencoder():
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 32, 32),
        sample_size=64,
    ).eval()


def save(folder: Path) -> Path:
    torch.manual_seed(0)
    tokens = words()
    text = text_config(tokens, hidden_act="gelu")
    vision = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32,
        patch_size=8, projection_dim=WIDTH, hidden_act="gelu",
    )  # fmt: skip
    pipe = StableUnCLIPImg2ImgPipeline(
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32),
        image_encoder=CLIPVisionModelWithProjection(vision).eval(),
        image_normalizer=StableUnCLIPImageNormalizer(WIDTH),
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=tokens,
        text_encoder=CLIPTextModel(text).eval(),
        unet=UNet2DConditionModel(
            sample_size=8,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            block_out_channels=(32, 32, 64, 64),
            layers_per_block=2,
            attention_head_dim=[2, 2, 4, 4],
            # Of 64 channels on one pixel 32 groups would leave two numbers each: a sign, not a norm.
            norm_num_groups=8,
            cross_attention_dim=WIDTH,
            use_linear_projection=True,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=2 * WIDTH,
        ).eval(),
        # As in the original's file: a scheduler with memory.
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
            skip_prk_steps=True, steps_offset=1,
        ),
        vae=autoencoder(),
    )  # fmt: skip
    pipe.save_pretrained(folder)
    return folder

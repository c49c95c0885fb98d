"""Stable unCLIP 2-1 in its published shapes, with random weights: true size without a download."""

import math
from functools import cache
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    StableUnCLIPImg2ImgPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from fgsynth.generate.generator import Generator
from fgsynth.utils.seeds import generator

WIDTH = 1024
"""Of CLIP's shared space."""
UNET: dict[str, Any] = {
    "sample_size": 96,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": WIDTH,
    "use_linear_projection": True,
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 2 * WIDTH,
}
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "sample_size": 768,
}
# OpenCLIP's ViT-H/14; its text half without the last of 24 layers.
TEXT: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": WIDTH,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "max_position_embeddings": 77,
    "hidden_act": "gelu",
}
VISION: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "projection_dim": WIDTH,
    "hidden_act": "gelu",
}
POOL = 1_048_583
"""Random numbers that are repeated through all weights: a prime, so that no two rows are equal."""


def networks() -> dict[str, nn.Module]:
    """The four networks by their names in a pipeline, parameters on the meta device: no memory, no time."""
    with init_empty_weights(include_buffers=False):
        return {
            "unet": UNet2DConditionModel(**UNET),
            "vae": AutoencoderKL(**VAE),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT)),
            "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)),
        }


@cache
def parameter_counts() -> dict[str, int]:
    """Parameters of each of the four networks."""
    return {name: sum(p.numel() for p in part.parameters()) for name, part in networks().items()}


def fill(network: nn.Module, dtype: torch.dtype, device: str = "cpu") -> nn.Module:
    """Give parameters on the meta device random values: seconds for a billion.

    Matrices and kernels are uniform with variance 1 / fan-in, so that activations neither vanish nor grow,
    scales of norms 1, biases up to 0.01.
    """
    pool = (torch.rand(POOL, generator=generator("true shapes")) * 2 - 1).to(device, dtype)
    for module in network.modules():
        for name, given in list(module.named_parameters(recurse=False)):
            value = _values(name, given.shape, pool)
            module.register_parameter(name, nn.Parameter(value, requires_grad=False))
    return network


def _values(name: str, shape: torch.Size, pool: Tensor) -> Tensor:
    if len(shape) == 1 and name == "weight":
        return torch.ones(shape, dtype=pool.dtype, device=pool.device)
    bound = math.sqrt(3 / shape[1:].numel()) if len(shape) > 1 else 0.01
    n = shape.numel()
    return pool.repeat(-(-n // POOL))[:n].reshape(shape) * bound


def true_size(n_steps: int, dtype: torch.dtype, device: str = "cpu") -> Generator:
    """A generator of true size: float32 decoder, everything else in `dtype`. Its images are noise."""
    parts = {
        name: fill(part, torch.float32 if name == "vae" else dtype, device)
        for name, part in networks().items()
    }
    # Every prompt is padded to 77 tokens: which ones they are costs nothing.
    marks = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    pipe = StableUnCLIPImg2ImgPipeline(
        **parts,
        image_normalizer=StableUnCLIPImageNormalizer(WIDTH).to(torch_dtype=dtype),
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        feature_extractor=CLIPImageProcessor(),
        tokenizer=CLIPTokenizer(vocab=marks, merges=[], model_max_length=77),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            set_alpha_to_one=False,
            steps_offset=1,
        ),
    )
    return Generator.of(pipe, n_steps, device=device)

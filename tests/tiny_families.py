"""Random SDXL, Stable Diffusion 3.5 and FLUX.1 in small: the originals' parts, few channels."""

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxPriorReduxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import SD3IPAdapterJointAttnProcessor2_0
from diffusers.models.embeddings import IPAdapterTimeImageProjection
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from safetensors.torch import save_file
from tiny_unclip import WIDTH, text_config, words
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

SIDE = 32
"""Pixels of an image's side: four to a latent."""
TOKENS = 16
"""Of SigLIP's image."""


def autoencoder(channels=4, **more):
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 32, 32), sample_size=SIDE, latent_channels=channels, **more,
    ).eval()  # fmt: skip


def t5():
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -3.0) for word in ("apple", "banana", "car", "in", "water")]
    tokens = T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=512)
    config = T5Config(
        vocab_size=32, d_model=2 * WIDTH, d_ff=64, d_kv=8, num_heads=4, num_layers=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return tokens, T5EncoderModel(config).eval()


def siglip(width=WIDTH):
    config = SiglipVisionConfig(
        hidden_size=width, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32,
        patch_size=8,
    )  # fmt: skip
    return SiglipVisionModel(config).eval()


def clip_eye(width=WIDTH):
    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32,
        patch_size=8, projection_dim=width,
    )  # fmt: skip
    return CLIPVisionModelWithProjection(config).eval()


def sdxl(folder, width=2 * WIDTH):
    """A random SDXL with its IP-Adapter beside it; width: of its text."""
    torch.manual_seed(0)
    tokens = words()
    pipe = StableDiffusionXLPipeline(
        tokenizer=tokens, tokenizer_2=words(), vae=autoencoder(),
        text_encoder=CLIPTextModel(text_config(tokens)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokens, hidden_act="gelu")).eval(),
        unet=UNet2DConditionModel(
            sample_size=8, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2),
            attention_head_dim=(2, 4), use_linear_projection=True, cross_attention_dim=width,
            addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=WIDTH + 6 * 8,
        ).eval(),
        # As in the original's file: a scheduler that is not DDIM.
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
            timestep_spacing="leading",
        ),
    )  # fmt: skip
    pipe.save_pretrained(folder / "base")
    state = {}
    for i, name in enumerate(pipe.unet.attn_processors):
        if name.endswith("attn2.processor"):
            layer = pipe.unet.get_submodule(name.removesuffix(".processor"))
            for part in "kv":
                state[f"ip_adapter.{i}.to_{part}_ip.weight"] = torch.randn(layer.to_k.out_features, width) / 4
    state |= {
        "image_proj.proj.weight": torch.randn(4 * width, WIDTH) / 4,
        "image_proj.proj.bias": torch.zeros(4 * width),
        "image_proj.norm.weight": torch.ones(width), "image_proj.norm.bias": torch.zeros(width),
    }  # fmt: skip
    return adapted(folder, state, clip_eye())


def adapted(folder, state, encoder):
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "ip-adapter.safetensors")
    encoder.save_pretrained(folder / "image_encoder")
    return f"{folder / 'base'} + {folder / 'ip-adapter.safetensors'}"


def sd3(folder, with_t5=True):
    """A random Stable Diffusion 3.5 with its IP-Adapter beside it."""
    torch.manual_seed(0)
    tokens = words()
    encoders = [CLIPTextModelWithProjection(text_config(tokens)).eval() for _ in range(2)]
    tokens_3, encoder_3 = t5() if with_t5 else (None, None)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=2 * WIDTH, caption_projection_dim=32,
        pooled_projection_dim=2 * WIDTH, pos_embed_max_size=16, dual_attention_layers=(0,),
        qk_norm="rms_norm",
    ).eval()  # fmt: skip
    StableDiffusion3Pipeline(
        tokenizer=tokens, text_encoder=encoders[0], tokenizer_2=words(), text_encoder_2=encoders[1],
        tokenizer_3=tokens_3, text_encoder_3=encoder_3, transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
    ).save_pretrained(folder / "base")  # fmt: skip
    adapter = IPAdapterTimeImageProjection(WIDTH, 32, 64, depth=4, dim_head=64, heads=1, num_queries=4)
    state = {f"image_proj.{name}": value for name, value in adapter.state_dict().items()}
    for i in range(len(transformer.attn_processors)):
        layer = SD3IPAdapterJointAttnProcessor2_0(32, 32, 8, timesteps_emb_dim=64)
        state |= {f"ip_adapter.{i}.{name}": value for name, value in layer.state_dict().items()}
    return adapted(folder, state, siglip())


def flux(folder, distilled=True):
    """A random FLUX.1 with Redux beside it; distilled: as [dev], else as [schnell]."""
    torch.manual_seed(0)
    tokens, (tokens_2, encoder_2) = words(), t5()
    FluxPipeline(
        tokenizer=tokens, text_encoder=CLIPTextModel(text_config(tokens)).eval(), tokenizer_2=tokens_2,
        text_encoder_2=encoder_2,
        vae=autoencoder(shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False),
        transformer=FluxTransformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=2 * WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=(4, 4, 8),
            guidance_embeds=distilled,
        ).eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=distilled, shift=3.0 if distilled else 1.0
        ),
    ).save_pretrained(folder / "base")  # fmt: skip
    redux().save_pretrained(folder / "redux")
    return f"{folder / 'base'} + {folder / 'redux'}"


def redux(width=2 * WIDTH):
    return FluxPriorReduxPipeline(
        image_encoder=siglip(), image_embedder=ReduxImageEncoder(WIDTH, width).eval(),
        feature_extractor=SiglipImageProcessor(size={"height": 32, "width": 32}),
    )  # fmt: skip

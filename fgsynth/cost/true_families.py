"""SDXL, Stable Diffusion 3.5 and FLUX.1 in their published shapes, counted on fake tensors."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import init_empty_weights
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0, SD3IPAdapterJointAttnProcessor2_0
from diffusers.models.embeddings import (
    ImageProjection,
    IPAdapterTimeImageProjection,
    MultiIPAdapterImageProjection,
)
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from fgsynth.cost.cards import CARDS, RESERVE
from fgsynth.cost.true_counts import N_STEPS, Scene, work
from fgsynth.cost.true_shapes import VAE, fill
from fgsynth.cost.true_size import CLASSIFIERS
from fgsynth.generate.generator import Generator
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import read_csv, write_text

BATCHES = (1, 4, 16)
KINDS = ("no feedback", "cheap, tiny decoder", "cheap", "exact")
"""Of feedback, from the least memory to the most."""
COLUMNS = {
    "parameters": ["model", "network", "parameters"],
    "memory": ["model", "feedback", "batch", "gib"],
    "work": ["model", "evaluation", "half_tflop", "full_tflop"],
}
"""Of the tables, a CSV each."""
CLIP_L: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "projection_dim": 768, "hidden_act": "quick_gelu",
}  # fmt: skip
CLIP_G: dict[str, Any] = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "projection_dim": 1280, "hidden_act": "gelu",
}  # fmt: skip
T5_XXL: dict[str, Any] = {
    "d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24, "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
}  # fmt: skip
SIGLIP: dict[str, Any] = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
    "image_size": 384, "patch_size": 14,
}  # fmt: skip
VAE_16: dict[str, Any] = {
    **VAE, "latent_channels": 16, "sample_size": 1024, "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip
EYE_G: dict[str, Any] = {
    "hidden_size": 1664, "intermediate_size": 8192, "num_hidden_layers": 48, "num_attention_heads": 16,
    "image_size": 224, "patch_size": 14, "projection_dim": 1280, "hidden_act": "gelu",
}  # fmt: skip


def sdxl() -> Any:
    """SDXL 1.0 with the IP-Adapter of OpenCLIP's ViT-bigG/14, four image tokens."""
    unet = UNet2DConditionModel(
        sample_size=128, block_out_channels=(320, 640, 1280), transformer_layers_per_block=(1, 2, 10),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(5, 10, 20), use_linear_projection=True, cross_attention_dim=2048,
        addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )  # fmt: skip
    layers: dict[str, Any] = {}
    for name, plain in unet.attn_processors.items():
        width = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
        cross = name.endswith("attn2.processor")
        layers[name] = IPAdapterAttnProcessor2_0(width, 2048) if cross else plain
    unet.set_attn_processor(layers)
    unet.encoder_hid_proj = MultiIPAdapterImageProjection([ImageProjection(1280, 2048, 4)])
    unet.config.encoder_hid_dim_type = "ip_image_proj"
    return StableDiffusionXLPipeline(
        unet=unet, vae=AutoencoderKL(**{**VAE, "sample_size": 1024}),
        text_encoder=_clip(CLIPTextModel, CLIP_L),
        text_encoder_2=_clip(CLIPTextModelWithProjection, CLIP_G), tokenizer=_words(), tokenizer_2=_words(),
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        image_encoder=CLIPVisionModelWithProjection(CLIPVisionConfig(**EYE_G)),
        feature_extractor=CLIPImageProcessor(),
    )  # fmt: skip


def sd35(heads: int, layers: int, dual: int, positions: int) -> Any:
    """Stable Diffusion 3.5 with an IP-Adapter as InstantX's: SigLIP's states, 64 image tokens."""
    width = 64 * heads
    net = SD3Transformer2DModel(
        sample_size=128, num_layers=layers, num_attention_heads=heads, caption_projection_dim=width,
        pooled_projection_dim=2048, pos_embed_max_size=positions, dual_attention_layers=tuple(range(dual)),
        qk_norm="rms_norm",
    )  # fmt: skip
    net.set_attn_processor(
        {name: SD3IPAdapterJointAttnProcessor2_0(width, width, 64) for name in net.attn_processors}
    )
    net.image_proj = IPAdapterTimeImageProjection(output_dim=width)
    texts = {
        "text_encoder": _clip(CLIPTextModelWithProjection, CLIP_L),
        "text_encoder_2": _clip(CLIPTextModelWithProjection, CLIP_G),
        "text_encoder_3": _t5(),
    }
    return StableDiffusion3Pipeline(
        transformer=net, vae=AutoencoderKL(**VAE_16, scaling_factor=1.5305, shift_factor=0.0609), **texts,
        tokenizer=_words(), tokenizer_2=_words(), tokenizer_3=_pieces(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), **_siglip(),
    )  # fmt: skip


def flux() -> Any:
    """FLUX.1 [dev] with Redux, 729 image tokens."""
    pipe = FluxPipeline(
        transformer=FluxTransformer2DModel(guidance_embeds=True),
        vae=AutoencoderKL(**VAE_16, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=_clip(CLIPTextModel, CLIP_L), tokenizer=_words(),
        text_encoder_2=_t5(), tokenizer_2=_pieces(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True), **_siglip(),
    )  # fmt: skip
    pipe.image_embedder = ReduxImageEncoder()
    return pipe


MODELS: dict[str, Callable[[], Any]] = {
    "SDXL, IP-Adapter": sdxl,
    "Stable Diffusion 3.5 medium, IP-Adapter": lambda: sd35(24, 24, 13, 384),
    "Stable Diffusion 3.5 large, IP-Adapter": lambda: sd35(38, 38, 0, 192),
    "FLUX.1 [dev], Redux": flux,
}


def _clip(kind: Any, shape: dict[str, Any]) -> Any:
    return kind(CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, **shape))


def _words() -> Any:
    """Every prompt is padded to 77 tokens: which ones they are costs nothing."""
    marks = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    return CLIPTokenizer(vocab=marks, merges=[], model_max_length=77)


def _pieces() -> Any:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁a", -1.0)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def _t5() -> Any:
    net = T5EncoderModel(T5Config(**T5_XXL))
    # One table, which parameters without values do not share by themselves.
    net.encoder.set_input_embeddings(net.shared)
    return net


def _siglip() -> dict[str, Any]:
    eye = SiglipVisionModel(SiglipVisionConfig(**SIGLIP))
    return {"image_encoder": eye, "feature_extractor": SiglipImageProcessor()}


@cache
def parameter_counts(model: str) -> dict[str, int]:
    """Parameters of a model's networks by their names in its pipeline; adapters count with their denoiser."""
    parts = {name: part for name, part in shapes(model).components.items() if isinstance(part, nn.Module)}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def shapes(model: str) -> Any:
    """A model's pipeline with its parameters on the meta device."""
    with init_empty_weights(include_buffers=False):
        return MODELS[model]()


def scene(model: str, *, tiny: bool = False) -> Scene:
    """A model in bfloat16 with ImageNet-LT's guide; tiny: guidance looks through a tiny decoder."""
    pipe, dtype = shapes(model), torch.bfloat16
    for name, part in (*pipe.components.items(), ("image_embedder", getattr(pipe, "image_embedder", None))):
        if isinstance(part, nn.Module):
            fill(part, torch.float32 if name == "vae" else dtype, "meta")
    look = AutoencoderTiny(latent_channels=pipe.vae.config.latent_channels).to("meta") if tiny else None
    generator = Generator.of(pipe, N_STEPS, device="meta", tiny=look)
    made = Scene.with_guide(generator, next(iter(CLASSIFIERS)))
    # What is tallied once serves operations and memory.
    made.tally = cache(made.tally)  # type: ignore[method-assign]
    return made


def memory(whole: Scene, small: Scene, batch: int) -> list[float]:
    """GiB at most, by kind of feedback, while a batch is made; small: with a tiny decoder."""
    plain = max(whole.tally(act, batch).peak for act in ("denoiser", "decoder"))
    acts = ((small, "cheap"), (whole, "cheap"), (whole, "exact"))
    return [max(plain, n) / 2**30 for n in (plain, *(s.tally(act, batch).peak for s, act in acts))]


def run(folder: Path, models: Sequence[str] = tuple(MODELS), batches: Sequence[int] = BATCHES) -> str:
    """Count parameters, operations and memory; write a CSV of each, return their text."""
    full, rows = torch.float32, {name: list[tuple[Any, ...]]() for name in COLUMNS}
    for m in models:
        whole, small = (scene(m, tiny=tiny) for tiny in (False, True))
        rows["parameters"] += [(m, name, n) for name, n in parameter_counts(m).items()]
        for kind, flops in work(whole).items():
            half = sum(n for dtype, n in flops.items() if dtype != full)
            rows["work"].append((m, kind, half / 1e12, flops[full] / 1e12))
        for b in batches:
            gib = zip(KINDS, memory(whole, small, b), strict=True)
            rows["memory"] += [(m, kind, b, size) for kind, size in gib]
    tables = {name: pd.DataFrame(each, columns=COLUMNS[name]) for name, each in rows.items()}
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.5g"))
    return "\n\n".join(table.to_string(index=False) for table in tables.values())


def blocks(root: Path) -> dict[str, str]:
    """The tables of docs/generators.md by their mark. Raises UserError where nothing was counted."""
    found, folder = {}, root / "reports" / "families"
    for name, columns in COLUMNS.items():
        path = folder / f"{name}.csv"
        found[name] = read_csv(path) if path.is_file() else pd.DataFrame()
        if list(found[name].columns) != columns:
            raise UserError(f"{path} does not hold {', '.join(columns)}: write it by true-size --families.")
    return {"sizes": _sizes(found["parameters"], found["work"]), "fits": _fits(found["memory"])}


def _sizes(parameters: pd.DataFrame, work: pd.DataFrame) -> str:
    """Billions of parameters by network, and operations of an image's parts."""
    part = parameters["network"].str.replace(r"_\d$", "", regex=True).replace("unet", "transformer")
    n = parameters.assign(part=part).pivot_table("parameters", "model", "part", "sum") / 1e9
    once = work.assign(tflop=work["half_tflop"] + work["full_tflop"]).pivot(
        index="model", columns="evaluation", values="tflop"
    )
    kinds = ("denoiser", "denoiser_back", "decoder", "decoder_back")
    lines = [
        "| model | denoiser and adapter | text encoders | image encoder | denoiser, TFLOP | its gradient | "
        "decoder | its gradient |",
        "| --- |" + " ---: |" * 7,
    ]
    for model in dict.fromkeys(parameters["model"]):
        billions = (
            f"{n.loc[model, name]:.2f} B" for name in ("transformer", "text_encoder", "image_encoder")
        )
        tflop = (f"{once.loc[model, kind]:.1f}" for kind in kinds)
        lines.append(f"| {' | '.join([model, *billions, *tflop])} |")
    return "\n".join(lines)


def _fits(memory: pd.DataFrame) -> str:
    """The largest batch by card's memory, model and feedback."""
    lines = [f"| memory | model | {' | '.join(KINDS)} |", "| --- | --- |" + " ---: |" * len(KINDS)]
    for gb in sorted({card.gb for card in CARDS.values()}):
        room = memory[memory["gib"] <= gb * 1e9 / 2**30 - RESERVE]
        most = room.groupby(["model", "feedback"])["batch"].max()
        for model in dict.fromkeys(memory["model"]):
            cells = (str(most.get((model, kind), "does not fit")) for kind in KINDS)
            lines.append(f"| {gb:g} GB | {' | '.join([model, *cells])} |")
    tried = ", ".join(map(str, sorted(set(memory["batch"]))))
    return "\n".join(
        [*lines, "", f"Largest batch of {tried} by count, {RESERVE:g} GiB of the card left free."]
    )

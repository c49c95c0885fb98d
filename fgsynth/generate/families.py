"""Families of generators: how each embeds text and images, and one evaluation of its denoiser.

Nothing else in the package depends on the family. Conditions are one tensor each: of text its hidden states
(n, tokens, width), a pooled embedding behind them as more tokens; of an image what `image_shape` says.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, StableUnCLIPImg2ImgPipeline
from diffusers.models.embeddings import ImageProjection
from torch import Tensor
from torch.nn.functional import pad

from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import noise, stable_seed

T5_BATCH = 16
"""Prompts that T5 reads together: eleven billion products each."""


class Family:
    """What families share, as Stable Diffusion 1.x and 2.x (Rombach et al. 2022) have it: text alone.

    pipeline: diffusers' class; left_out: its parts that are not loaded, with what stands for them; optional:
    those that a model may lack; t5_length: tokens that T5 reads, whose positions have no end; patch: a
    latent's sides are whole numbers of it; folds_cfg: the network takes the scale of classifier-free guidance
    as a number, of which it needs no second evaluation.
    """

    pipeline: ClassVar[Any] = StableDiffusionPipeline
    # The safety filter looks at the images of the pipeline's own call, which is never used.
    left_out: ClassVar[dict[str, Any]] = {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    optional: ClassVar[tuple[str, ...]] = ()
    t5_length: ClassVar[int] = 512
    patch: ClassVar[int] = 1
    folds_cfg: ClassVar[bool] = False

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.denoiser: Any = getattr(pipe, "transformer", None) or pipe.unet

    @property
    def size(self) -> int:
        """Side of the latents that the model was made for; where its file names none, as diffusers has it."""
        return int(self.denoiser.config.get("sample_size", 128))

    @property
    def readers(self) -> list[tuple[Any, Any, int]]:
        """Of each text encoder there is: tokenizer, encoder, most tokens of a prompt, with its marks."""
        found = []
        for i in ("", "_2", "_3"):
            if (encoder := getattr(self.pipe, f"text_encoder{i}", None)) is not None:
                tokens = getattr(self.pipe, f"tokenizer{i}")
                # Of the encoder where the tokenizer's file gives none.
                longest = getattr(encoder.config, "max_position_embeddings", self.t5_length)
                found.append((tokens, encoder, min(tokens.model_max_length, longest)))
        return found

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of an image condition; (0,) of a model that takes text only."""
        return (0,)

    @property
    def nothing(self) -> tuple[int, ...]:
        """Shape of the zeros that stand for no image."""
        return self.image_shape

    @property
    def empty_prompt(self) -> str | None:
        """Prompt of the unconditional half; None for zeros in place of its embedding."""
        return ""

    def meet(self) -> dict[str, tuple[int, int]]:
        """Sizes in which the parts of a pipeline meet: what one gives and what the denoiser takes."""
        d, text = self.denoiser.config, sum(e.config.hidden_size for _, e, _ in self.readers)
        return {
            "the text's width": (text, d.cross_attention_dim),
            "the latents' channels": (self.pipe.vae.config.latent_channels, d.in_channels),
        }

    def spacing(self, size: int) -> dict[str, Any]:
        """What a flow's steps depend on besides, for latents of a side; see `Schedule.from_scheduler`."""
        return {}

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Text condition of prompts, (n, tokens, width)."""
        (reader,) = self.readers
        return encoded(reader, prompts)[0]

    def embed_images(self, pixels: Tensor) -> Tensor:
        """What dropout takes units of: embeddings of images by the model's own encoder."""
        return self.pipe.image_encoder(pixels).image_embeds

    def condition(self, embedding: Tensor, seeds: Sequence[int], noise_level: int) -> Tensor:
        """Image condition of embeddings after dropout."""
        if noise_level:
            raise UserError(
                f"{type(self.pipe).__name__} takes image embeddings without noise: set noise_level to 0."
            )
        return embedding

    def check_cfg(self, cfg: float) -> None:
        """Raise UserError for a scale of classifier-free guidance that the model does not take."""

    def evaluate(self, z: Tensor, t: float, text: Tensor, image: Tensor, cfg: float) -> Tensor:
        """The denoiser's output for latents z (n, c, h, w) at a time t."""
        return self.denoiser(z, t, text, return_dict=False)[0]


class UnClip(Family):
    """Stable unCLIP (Ramesh et al. 2022): CLIP's embedding with noise and the noise level as class label."""

    pipeline = StableUnCLIPImg2ImgPipeline
    left_out: ClassVar[dict[str, Any]] = {}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Twice CLIP's width."""
        return (self.denoiser.config.projection_class_embeddings_input_dim,)

    def meet(self) -> dict[str, tuple[int, int]]:
        """CLIP's, besides."""
        width = 2 * self.pipe.image_encoder.config.projection_dim
        return super().meet() | {"twice the image embedding's width": (width, self.image_shape[0])}

    def condition(self, embedding: Tensor, seeds: Sequence[int], noise_level: int) -> Tensor:
        """The embedding with noise, and its noise level; zeros where dropout leaves nothing."""
        top = self.pipe.image_noising_scheduler.config.num_train_timesteps
        if not 0 <= noise_level < top:
            raise UserError(f"Embedding noise level {noise_level}: choose between 0 and {top - 1}.")
        drawn = noise([stable_seed("embedding noise", s) for s in seeds], embedding.shape[1:])
        noised = self.pipe.noise_image_embeddings(embedding, noise_level, noise=drawn.to(embedding))
        return noised * (embedding != 0).any(1, keepdim=True)

    def evaluate(self, z: Tensor, t: float, text: Tensor, image: Tensor, cfg: float) -> Tensor:
        """With the image condition as class label."""
        return self.denoiser(z, t, text, class_labels=image, return_dict=False)[0]


class SDXL(Family):
    """SDXL (Podell et al. 2023), and an IP-Adapter (Ye et al. 2023) where one is loaded.

    Micro-conditioning: original and target size are the image's own, and nothing is cropped.
    """

    pipeline = StableDiffusionXLPipeline
    left_out: ClassVar[dict[str, Any]] = {}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Width of CLIP's projected embedding, which the adapter makes tokens of."""
        if (adapter := self.denoiser.encoder_hid_proj) is None:
            return (0,)
        first, *more = adapter.image_projection_layers
        if more or not isinstance(first, ImageProjection):
            raise UserError(
                f"An IP-Adapter of {1 + len(more)} {type(first).__name__} is not supported: load one that "
                "projects CLIP's image embedding, such as ip-adapter_sdxl_vit-h.safetensors."
            )
        return (first.image_embeds.in_features,)

    @property
    def empty_prompt(self) -> str | None:
        """Zeros where the model was trained so."""
        return None if self.pipe.config.force_zeros_for_empty_prompt else ""

    def meet(self) -> dict[str, tuple[int, int]]:
        """Micro-conditioning's, besides, and the adapter's."""
        d = self.denoiser.config
        added = self.pipe.text_encoder_2.config.projection_dim + 6 * d.addition_time_embed_dim
        sizes = {"the width of pooled text and sizes": (added, d.projection_class_embeddings_input_dim)}
        return super().meet() | sizes | adapted(self.pipe, self.image_shape[0], "projection_dim")

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Both encoders' states before the last layer, side by side, and the second's pooled text."""
        first, second = (encoded(reader, prompts, deep=True) for reader in self.readers)
        return packed(torch.cat([first[0], second[0]], -1), second[1])

    def evaluate(self, z: Tensor, t: float, text: Tensor, image: Tensor, cfg: float) -> Tensor:
        """With pooled text, sizes and the image embedding."""
        states, pooled = unpacked(text, self.pipe.text_encoder_2.config.projection_dim)
        side = z.shape[-1] * self.pipe.vae_scale_factor
        sizes = torch.tensor([side, side, 0, 0, side, side], device=z.device, dtype=z.dtype)
        added: dict[str, Any] = {"text_embeds": pooled, "time_ids": sizes.expand(len(z), -1)}
        if image.shape[1]:
            added["image_embeds"] = [image[:, None]]
        return self.denoiser(z, t, states, added_cond_kwargs=added, return_dict=False)[0]


def packed(states: Tensor, pooled: Tensor) -> Tensor:
    """Hidden states (n, tokens, width) with a pooled embedding behind them, as more tokens, padded."""
    width = states.shape[-1]
    return torch.cat([states, pad(pooled, (0, -pooled.shape[1] % width)).unflatten(1, (-1, width))], 1)


def unpacked(text: Tensor, pooled: int) -> tuple[Tensor, Tensor]:
    """Hidden states, and the pooled embedding of that width that `packed` has put behind them."""
    rows = -(-pooled // text.shape[-1])
    return text[:, :-rows], text[:, -rows:].flatten(1)[:, :pooled]


def encoded(
    reader: tuple[Any, Any, int], prompts: Sequence[str], *, deep: bool = False
) -> tuple[Tensor, Tensor]:
    """Hidden states and pooled text of prompts, projected where the encoder projects; T5 pools nothing.

    deep: of CLIP the states before the last layer.
    """
    (tokens, encoder, length), parts = reader, []
    ids = tokens(list(prompts), padding="max_length", max_length=length, return_tensors="pt").input_ids
    device, t5 = next(encoder.parameters()).device, hasattr(encoder.config, "d_model")
    for part in ids.split(T5_BATCH if t5 else 256):
        out = encoder(part.to(device), output_hidden_states=deep and not t5)
        states = out.hidden_states[-2] if deep and not t5 else out.last_hidden_state
        pooled = states[:, 0] if t5 else out.get("text_embeds", out.get("pooler_output"))
        parts.append((states, pooled))
    return tuple(map(torch.cat, zip(*parts, strict=True)))  # type: ignore[return-value]


def adapted(pipe: Any, taken: int, key: str) -> dict[str, tuple[int, int]]:
    """The image embedding's width as its encoder's configuration names it, where an adapter takes one."""
    given = getattr(pipe.image_encoder.config, key) if pipe.image_encoder is not None else 0
    return {"the image embedding's width": (given, taken)} if taken else {}

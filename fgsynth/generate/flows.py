"""Families that are flows: Stable Diffusion 3.x and FLUX.1, transformers under flow matching."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline
from torch import Tensor
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle

from fgsynth.generate.families import Family, adapted, encoded, packed, unpacked
from fgsynth.utils.errors import UserError


class SD3(Family):
    """Stable Diffusion 3 and 3.5 (Esser et al. 2024); T5 may be left out, an IP-Adapter be loaded."""

    pipeline = StableDiffusion3Pipeline
    left_out: ClassVar[dict[str, Any]] = {}
    optional = ("text_encoder_3", "tokenizer_3")
    t5_length = 256
    patch = 2

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Tokens and width of SigLIP's states, which the adapter makes tokens of."""
        adapter = getattr(self.denoiser, "image_proj", None)
        return (0,) if adapter is None else (_patches(self.pipe), adapter.proj_in.in_features)

    def meet(self) -> dict[str, tuple[int, int]]:
        """Of text, pooled text and latents, and the adapter's."""
        d, (first, second, *t5) = self.denoiser.config, (encoder.config for _, encoder, _ in self.readers)
        sizes = {
            "the pooled text's width": (
                first.projection_dim + second.projection_dim,
                d.pooled_projection_dim,
            ),
            "the latents' channels": (self.pipe.vae.config.latent_channels, d.in_channels),
            "the patches' side": (self.patch, d.patch_size),
        }
        if t5:
            sizes["the text's width"] = (t5[0].d_model, d.joint_attention_dim)
        return sizes | adapted(self.pipe, self.image_shape[-1], "hidden_size")

    def spacing(self, size: int) -> dict[str, Any]:
        """Shifted by the tokens of an image, where the scheduler says so."""
        return {"tokens": (size // self.patch) ** 2}

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """CLIP's states side by side, padded to T5's width, and T5's; then both pooled texts."""
        first, second, *t5 = (encoded(reader, prompts, deep=True) for reader in self.readers)
        states, width = torch.cat([first[0], second[0]], -1), self.denoiser.config.joint_attention_dim
        third = t5[0][0] if t5 else states.new_zeros(len(states), self.t5_length, width)
        states = torch.cat([pad(states, (0, width - states.shape[-1])), third], 1)
        return packed(states, torch.cat([first[1], second[1]], -1))

    def embed_images(self, pixels: Tensor) -> Tensor:
        """SigLIP's states before the last layer, (n, tokens, width)."""
        return self.pipe.image_encoder(pixels, output_hidden_states=True).hidden_states[-2]

    def evaluate(self, z: Tensor, t: float, text: Tensor, image: Tensor, cfg: float) -> Tensor:
        """With pooled text; the image embedding goes to the adapters of the attention layers."""
        states, pooled = unpacked(text, self.denoiser.config.pooled_projection_dim)
        given = {"ip_adapter_image_embeds": image} if image.shape[1] else None
        time = torch.full((len(z),), t, device=z.device)
        return self.denoiser(z, states, pooled, time, joint_attention_kwargs=given, return_dict=False)[0]


class Flux(Family):
    """FLUX.1 (Black Forest Labs 2024), with Redux's image tokens behind the text where Redux is loaded.

    Guidance is distilled: [dev] takes the scale of classifier-free guidance as a number, [schnell] none.
    """

    pipeline = FluxPipeline
    left_out: ClassVar[dict[str, Any]] = {}
    patch = 2
    folds_cfg = True

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Number and width of Redux's image tokens."""
        redux = getattr(self.pipe, "image_embedder", None)
        return (0,) if redux is None else (_patches(self.pipe), redux.config.txt_in_features)

    @property
    def nothing(self) -> tuple[int, ...]:
        """No tokens, as Redux has none that mean no image."""
        return (0, *self.image_shape[1:])

    def meet(self) -> dict[str, tuple[int, int]]:
        """Of text, pooled text, latents in packs of four, and Redux's."""
        p, d = self.pipe, self.denoiser.config
        sizes = {
            "the text's width": (p.text_encoder_2.config.d_model, d.joint_attention_dim),
            "the pooled text's width": (p.text_encoder.config.hidden_size, d.pooled_projection_dim),
            "four times the latents' channels": (4 * p.vae.config.latent_channels, d.in_channels),
        }
        if (redux := getattr(p, "image_embedder", None)) is None:
            return sizes
        sizes["the width of Redux's tokens"] = (redux.config.txt_in_features, d.joint_attention_dim)
        return sizes | adapted(p, redux.config.redux_dim, "hidden_size")

    def spacing(self, size: int) -> dict[str, Any]:
        """Evenly, then shifted by the tokens of an image, where the scheduler says so."""
        return {"tokens": (size // self.patch) ** 2, "evenly": True}

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """T5's states and CLIP's pooled text."""
        clip, t5 = (encoded(reader, prompts) for reader in self.readers)
        return packed(t5[0], clip[1])

    def embed_images(self, pixels: Tensor) -> Tensor:
        """SigLIP's last states, (n, tokens, width)."""
        return self.pipe.image_encoder(pixels).last_hidden_state

    def condition(self, embedding: Tensor, seeds: Sequence[int], noise_level: int) -> Tensor:
        """Redux's tokens."""
        return self.pipe.image_embedder(super().condition(embedding, seeds, noise_level)).image_embeds

    def check_cfg(self, cfg: float) -> None:
        """Only a network with an input for it takes a scale."""
        if cfg > 1 and not self.denoiser.config.guidance_embeds:
            raise UserError(
                f"This FLUX.1 is distilled without classifier-free guidance, as [schnell] is: set cfg and "
                f"cfg_text to 1 instead of {cfg:g}."
            )

    def evaluate(self, z: Tensor, t: float, text: Tensor, image: Tensor, cfg: float) -> Tensor:
        """Of latents as tokens of 2 x 2, behind them those of text and image."""
        net, n, (h, w) = self.denoiser, len(z), (side // 2 for side in z.shape[2:])
        states, pooled = unpacked(text, net.config.pooled_projection_dim)
        if image.shape[1]:
            states = torch.cat([states, image], 1)
        places = self.pipe._prepare_latent_image_ids(n, h, w, z.device, torch.float32)
        numbers = {"timestep": t / 1000, "guidance": cfg}
        given = {name: torch.full((n,), value, device=z.device) for name, value in numbers.items()}
        if not net.config.guidance_embeds:
            del given["guidance"]
        out = net(
            pixel_unshuffle(z, 2).flatten(2).transpose(1, 2), states, pooled, img_ids=places,
            txt_ids=places.new_zeros(states.shape[1], 3), return_dict=False, **given,
        )[0]  # fmt: skip
        return pixel_shuffle(out.transpose(1, 2).unflatten(2, (h, w)), 2)


def _patches(pipe: Any) -> int:
    """Tokens that the image encoder makes of an image."""
    if pipe.image_encoder is None:
        raise UserError("The image adapter has no image encoder: load its SigLIP with it.")
    return int(pipe.image_encoder.config.image_size // pipe.image_encoder.config.patch_size) ** 2

"""The frozen generator behind four words: embed_text, embed_image, predict, decode."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableUnCLIPImg2ImgPipeline,
)
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fgsynth.data.images import ImageLike, as_rgb_all
from fgsynth.generate import pipelines
from fgsynth.guidance.schedule import Predict, Schedule, model_function
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator, noise, stable_seed

LARGE = 32
"""Latents of this side and larger are decoded one by one, and networks for them differentiated with
checkpoints; below, memory is not worth the time."""


@dataclass(frozen=True)
class Dropout:
    """Dropout of the image embedding (FG 3.2): p of its units ("units") or of the whole ("whole").

    The paper prints p = 0.5 for Places-LT and neither the kind nor whether the rest is scaled up; "units"
    without scaling is our reading, as it leaves the embedding's other coordinates where CLIP put them.
    """

    p: float = 0.5
    kind: Literal["off", "units", "whole"] = "units"

    def __post_init__(self) -> None:
        if self.kind not in ("off", "units", "whole"):
            raise UserError(f"Unknown embedding dropout '{self.kind}': choose 'off', 'units' or 'whole'.")
        if not 0 <= self.p <= 1:
            raise UserError(f"Embedding dropout p = {self.p}: must lie between 0 and 1.")

    def __call__(self, embedding: Tensor, seeds: Sequence[int]) -> Tensor:
        """Zeroes units of embeddings (n, d), each row by its own seed."""
        if self.kind == "off" or self.p == 0:
            return embedding
        width = 1 if self.kind == "whole" else embedding.shape[1]
        draws = [torch.rand(width, generator=generator("embedding dropout", seed)) for seed in seeds]
        return embedding * (torch.stack(draws) >= self.p).to(embedding)


NO_DROPOUT = Dropout(0.0, "off")


@dataclass
class Generator:
    """A frozen Stable unCLIP (Ramesh et al. 2022) or Stable Diffusion (Rombach et al. 2022) and its schedule.

    pipe: the diffusers pipeline; its parts are used one by one, never its call. schedule: DDIM's. tiny: a
    small decoder that guidance may look through. Text embeddings are kept by prompt, as class names repeat.
    Of the two only unCLIP takes an image condition; the other's is empty, (n, 0).
    """

    pipe: StableUnCLIPImg2ImgPipeline | StableDiffusionPipeline
    schedule: Schedule
    tiny: AutoencoderTiny | None = None
    _texts: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def load(
        cls,
        model: str | Path,
        n_steps: int = 30,
        *,
        revision: str | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        tiny_decoder: str | Path | None = None,
        compiled: bool = False,
    ) -> "Generator":
        """A generator of any family from a local folder or a hub id; its model_index.json names the family.

        dtype: of all but the decoders. tiny_decoder: folder or hub id of an AutoencoderTiny for guidance
        alone. compiled: the denoiser by torch.compile, which takes minutes for every size of batch. Raises
        UserError where there is no such model, and for a tiny decoder of other latents.
        """
        pipe = pipelines.pipeline(model, revision, dtype)
        tiny = None
        if tiny_decoder is not None:
            tiny = pipelines.tiny_decoder(tiny_decoder, pipe.unet.config.in_channels)
        generator = cls.of(pipe, n_steps, device=device, tiny=tiny)
        if compiled:
            pipe.unet.compile()
        return generator

    @classmethod
    def of(
        cls,
        pipe: StableUnCLIPImg2ImgPipeline | StableDiffusionPipeline,
        n_steps: int = 30,
        *,
        device: str = "cpu",
        tiny: AutoencoderTiny | None = None,
    ) -> "Generator":
        """The generator of a pipeline: its networks frozen, on the device, under DDIM.

        The pipeline's scheduler is replaced by DDIM of the same noise schedule: one with memory, such as the
        PNDM of Stable unCLIP 2-1, breaks under a shifted latent. Decoders are kept in float32, as half
        precision loses the criterion's gradient.
        """
        # The file's own clip_sample, if any, is of no use to latents.
        pipe.scheduler = DDIMScheduler.from_config(
            pipe.scheduler.config, clip_sample=False, thresholding=False
        )
        schedule = Schedule.from_scheduler(pipe.scheduler, n_steps)
        image_half = (getattr(pipe, name, None) for name in ("image_encoder", "image_normalizer"))
        for part in filter(None, (pipe.unet, pipe.vae, pipe.text_encoder, tiny, *image_half)):
            part.requires_grad_(False).eval().to(device)
        for decoder in filter(None, (pipe.vae, tiny)):
            torch.nn.Module.float(decoder)  # diffusers own `to` warns about every cast
        for part in (pipe.unet, pipe.vae):
            part.to(memory_format=torch.channels_last)
        generator = cls(pipe, schedule, tiny)
        if generator.large:
            for part in filter(None, (pipe.unet, tiny)):
                part.enable_gradient_checkpointing()
            _checkpoint_each(pipe.vae.decoder)
        return generator

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.pipe.unet.parameters()).device

    @property
    def large(self) -> bool:
        """Whether images are so large that memory is saved at the cost of time."""
        return int(self.pipe.unet.config.sample_size) >= LARGE

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the denoiser."""
        return next(self.pipe.unet.parameters()).dtype

    @property
    def image_width(self) -> int:
        """Numbers in an image condition: twice CLIP's width; 0 of a model that takes text only."""
        return self.pipe.unet.config.projection_class_embeddings_input_dim or 0

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """The text encoder's last hidden states, (n, tokens, width); a prompt seen before costs nothing.

        Raises UserError for a prompt of more tokens than the tokenizer takes.
        """
        new = sorted(set(prompts) - set(self._texts))
        if new:
            tokens, length = self.pipe.tokenizer, self.pipe.tokenizer.model_max_length
            for prompt, ids in zip(new, tokens(new).input_ids, strict=True):
                if len(ids) > length:
                    raise UserError(
                        f"The prompt '{prompt}' has {len(ids)} tokens, the model takes {length}: shorten it."
                    )
            ids = tokens(new, padding="max_length", max_length=length, return_tensors="pt").input_ids
            states = [self.pipe.text_encoder(part.to(self.device))[0] for part in ids.split(256)]
            self._texts.update(zip(new, torch.cat(states).to(self.dtype), strict=True))
        return torch.stack([self._texts[prompt] for prompt in prompts])

    def knowing(self, texts: Mapping[str, Tensor]) -> "Generator":
        """The same networks, to which these prompts mean states (tokens, width) that were made elsewhere."""
        return replace(self, _texts=dict(texts))

    @torch.no_grad()
    def embed_image(
        self,
        images: Sequence[ImageLike],
        seeds: Sequence[int],
        dropout: Dropout = NO_DROPOUT,
        noise_level: int = 0,
    ) -> Tensor:
        """CLIP's embedding of an image each, thinned by dropout, noised, with its level: (n, 2 width).

        Every image has its own seed for dropout and noise. noise_level: training steps of the noising
        schedule; 0 still adds the little noise of its first step, as diffusers does. An embedding of which
        dropout leaves nothing is no image.
        """
        embedding = self.clip_embedding(images)
        return self.condition_image(embedding, seeds, dropout, noise_level)

    @torch.no_grad()
    def clip_embedding(self, images: Sequence[ImageLike], batch: int = 256) -> Tensor:
        """CLIP's projected image embedding, (n, width). Raises UserError where the model takes text only."""
        self._check_takes_images()
        parts = []
        for start in range(0, len(images), batch):
            rgb = as_rgb_all(images[start : start + batch], start)
            pixels = self.pipe.feature_extractor(images=rgb, return_tensors="pt").pixel_values
            parts.append(self.pipe.image_encoder(pixels.to(self.device, self.dtype)).image_embeds)
        return torch.cat(parts)

    @torch.no_grad()
    def condition_image(
        self, embedding: Tensor, seeds: Sequence[int], dropout: Dropout = NO_DROPOUT, noise_level: int = 0
    ) -> Tensor:
        """The second half of `embed_image`, from CLIP embeddings (n, width) that are already there."""
        self._check_takes_images()
        top = self.pipe.image_noising_scheduler.config.num_train_timesteps
        if not 0 <= noise_level < top:
            raise UserError(f"Embedding noise level {noise_level}: choose between 0 and {top - 1}.")
        thinned = dropout(embedding.to(self.device, self.dtype), seeds)
        drawn = noise([stable_seed("embedding noise", s) for s in seeds], embedding.shape[1:])
        noised = self.pipe.noise_image_embeddings(thinned, noise_level, noise=drawn.to(thinned))
        return noised * (thinned != 0).any(1, keepdim=True)

    def no_image(self, n: int) -> Tensor:
        """The condition of text-only sampling: all zeros, as unCLIP's unconditional half, (n, 2 width)."""
        return torch.zeros(n, self.image_width, device=self.device, dtype=self.dtype)

    def _check_takes_images(self) -> None:
        if not self.image_width:
            raise UserError(
                f"{type(self.pipe).__name__} takes text only, no image condition: leave out the methods with "
                "image: true, or set the parameter `generator` to an unCLIP."
            )

    def predict(self, text: Tensor, image: Tensor, cfg: float) -> Predict:
        """The model function under classifier-free guidance (FG eq. 2): (z_t, t) -> (x0_hat, eps_hat).

        text (n, tokens, width), image (n, image_width), cfg: the scale s; at most 1 switches it off.
        Both halves are one pass of the network. Raises UserError for an image condition of another model.
        """
        if image.shape[1] != self.image_width:
            raise UserError(
                f"The image condition has {image.shape[1]} numbers, the model takes {self.image_width}: make "
                "it with this generator's embed_image or no_image."
            )
        guided = cfg > 1
        if guided:
            text = torch.cat([self.embed_text([""]).expand_as(text), text])
            image = torch.cat([torch.zeros_like(image), image])
        labels = image if self.image_width else None

        def network(z: Tensor, t: int) -> Tensor:
            latent = torch.cat([z, z]) if guided else z
            latent = latent.to(self.dtype, memory_format=torch.channels_last)
            # A tensor, as a number would be a constant to torch.compile, another one at every step.
            step = torch.tensor(t, device=z.device)
            out = self.pipe.unet(latent, step, text, class_labels=labels, return_dict=False)[0].to(z.dtype)
            if not guided:
                return out
            without, with_condition = out.chunk(2)
            return without + cfg * (with_condition - without)

        return model_function(network, self.schedule, self.pipe.scheduler.config.prediction_type)

    def decode(self, z: Tensor) -> Tensor:
        """The autoencoder's image of latents (n, c, h, w): float32 (n, 3, height, width), about [-1, 1].

        Large latents are decoded one by one: for a gradient only what lies between the decoder's blocks is
        kept of each image, the rest is computed again.
        """
        return _decoded(self.pipe.vae, z)

    def decode_for_guidance(self, z: Tensor) -> Tensor:
        """What the guide sees: `decode`, or its likeness by the tiny decoder where there is one."""
        return _decoded(self.tiny or self.pipe.vae, z)

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """Starting noise, one generator per image, float32 (n, c, h, w)."""
        c = self.pipe.unet.config
        return noise(seeds, (c.in_channels, c.sample_size, c.sample_size)).to(self.device)


def _checkpoint_each(decoder: nn.Module) -> None:
    """Every residual block and upsampling keeps its input alone for a gradient; the rest is computed again.

    Finer than diffusers' own checkpoints, one per size of image: computing a whole size again takes 2 GiB
    more at 768 pixels (fgsynth.cost.true_counts), and its attention needs no second time.
    """
    for part in decoder.modules():
        if isinstance(part, (ResnetBlock2D, Upsample2D)):
            part.forward = partial(checkpoint, part.forward, use_reentrant=False)


def _decoded(vae: Any, z: Tensor) -> Tensor:
    z = z.float() / vae.config.scaling_factor
    with torch.autocast(z.device.type, enabled=False):
        parts = [z] if z.shape[-1] < LARGE else z.split(1)
        return torch.cat([vae.decode(part, return_dict=False)[0] for part in parts])

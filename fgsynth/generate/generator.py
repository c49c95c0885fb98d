"""The frozen generator: text and image conditions, the model function, the decoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, StableUnCLIPImg2ImgPipeline
from torch import Tensor, nn

from fgsynth.config.checked import Checked, checked
from fgsynth.config.schema import NotNegative, Share
from fgsynth.data.images import ImageLike, as_rgb_all
from fgsynth.generate import pipelines
from fgsynth.guidance.schedule import Predict, Schedule, model_function
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import generator, noise, stable_seed

LARGE = 32
"""Side of latents from which memory is saved at the cost of time: decoding one by one, checkpoints."""


@dataclass(frozen=True)
class Dropout(Checked):
    """Dropout of the image embedding (FG 3.2): each unit is zero with probability p, the others stay.

    The paper prints p = 0.5 for Places-LT and neither whether units or whole embeddings are dropped nor
    whether the rest is scaled up; units without scaling is our reading, as it leaves the other coordinates
    where CLIP put them.
    """

    p: Share = 0.5

    def __call__(self, embedding: Tensor, seeds: Sequence[int]) -> Tensor:
        """Zero units of embeddings (n, d), each row by its own seed."""
        if self.p == 0:
            return embedding
        width = embedding.shape[1]
        draws = [torch.rand(width, generator=generator("embedding dropout", seed)) for seed in seeds]
        return embedding * (torch.stack(draws) >= self.p).to(embedding)


NO_DROPOUT = Dropout(0.0)


@dataclass
class Generator:
    """A frozen Stable unCLIP (Ramesh et al. 2022) or Stable Diffusion (Rombach et al. 2022) and its schedule.

    Only unCLIP takes an image condition; that of Stable Diffusion is empty, (n, 0). Text embeddings are
    cached by prompt, as class names repeat. pipe: the diffusers pipeline, whose networks are used one by one;
    schedule: DDIM's noise schedule and steps; tiny: a small decoder for guidance alone, None for the
    autoencoder's own.
    """

    pipe: StableUnCLIPImg2ImgPipeline | StableDiffusionPipeline
    schedule: Schedule
    tiny: AutoencoderTiny | None = None
    _texts: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    @checked
    def load(
        cls,
        model: str | Path,
        n_steps: int = 30,
        *,
        revision: str | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        tiny_decoder: str | Path | None = None,
    ) -> "Generator":
        """Load a generator from a local folder or a hub id, of the family that model_index.json names.

        `n_steps` are DDIM's; `dtype` is of all networks but the decoders; `tiny_decoder` is the folder or hub
        id of an AutoencoderTiny for guidance. Raises UserError where a model cannot be loaded, for a tiny
        decoder of other latents and for a device that is not there.
        """
        if not dtype.is_floating_point:
            raise UserError(f"Generator.load: dtype is {dtype}: choose torch.float32, bfloat16 or float16.")
        pipe = pipelines.pipeline(model, revision, dtype)
        tiny = None
        if tiny_decoder is not None:
            tiny = pipelines.tiny_decoder(tiny_decoder, pipe.unet.config.in_channels)
        return cls.of(pipe, n_steps, device=device, tiny=tiny)

    @classmethod
    def of(
        cls,
        pipe: StableUnCLIPImg2ImgPipeline | StableDiffusionPipeline,
        n_steps: int = 30,
        *,
        device: str = "cpu",
        tiny: AutoencoderTiny | None = None,
    ) -> "Generator":
        """Generator of a pipeline: its networks frozen, on the device, sampled by DDIM.

        DDIM replaces the pipeline's scheduler, with the same noise schedule: a scheduler with memory, such as
        the PNDM of Stable unCLIP 2-1, breaks under a shifted latent. Decoders stay in float32, as half
        precision loses the criterion's gradient.
        """
        # Latents have no range to clip to, whatever the file says.
        pipe.scheduler = DDIMScheduler.from_config(
            pipe.scheduler.config, clip_sample=False, thresholding=False
        )
        generator = cls(pipe, Schedule.from_scheduler(pipe.scheduler, n_steps), tiny)
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise UserError(f"There is no device '{device}' here ({reason}): take 'cpu'.") from error
        for part in filter(None, (*generator.networks.values(), getattr(pipe, "image_normalizer", None))):
            part.requires_grad_(False).eval().to(device)
        for decoder in filter(None, (pipe.vae, tiny)):
            nn.Module.float(decoder)  # diffusers own `to` warns about every cast
        for part in (pipe.unet, pipe.vae):
            part.to(memory_format=torch.channels_last)
        if generator.large:
            for part in filter(None, (pipe.unet, tiny)):
                part.enable_gradient_checkpointing()
            pipelines.checkpoint_each(pipe.vae.decoder)
        return generator

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks by what they are for; those that the model does not have are left out."""
        pipe = self.pipe
        named = {
            "text": pipe.text_encoder, "image": getattr(pipe, "image_encoder", None), "denoiser": pipe.unet,
            "autoencoder": pipe.vae, "tiny decoder": self.tiny,
        }  # fmt: skip
        return {name: part for name, part in named.items() if part is not None}

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return next(self.pipe.unet.parameters()).device

    @property
    def large(self) -> bool:
        """Whether memory is saved at the cost of time, see LARGE."""
        return int(self.pipe.unet.config.sample_size) >= LARGE

    @property
    def side(self) -> int:
        """Pixels of an image's side."""
        return int(self.pipe.unet.config.sample_size * self.pipe.vae_scale_factor)

    @property
    def text_length(self) -> int:
        """Tokens of a prompt at most, with its marks."""
        # Of the encoder where the tokenizer's file gives none.
        longest = self.pipe.text_encoder.config.max_position_embeddings
        return min(self.pipe.tokenizer.model_max_length, longest)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the denoiser."""
        return next(self.pipe.unet.parameters()).dtype

    @property
    def image_width(self) -> int:
        """Width of an image condition: twice CLIP's; 0 for a model that takes text only."""
        return self.pipe.unet.config.projection_class_embeddings_input_dim or 0

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Text condition: the text encoder's last hidden states, (n, tokens, width), cached by prompt.

        Raises UserError as `check_prompts`.
        """
        new = sorted(set(prompts) - set(self._texts))
        if new:
            self.check_prompts(new)
            tokens, length = self.pipe.tokenizer, self.text_length
            ids = tokens(new, padding="max_length", max_length=length, return_tensors="pt").input_ids
            states = [self.pipe.text_encoder(part.to(self.device))[0] for part in ids.split(256)]
            self._texts.update(zip(new, torch.cat(states).to(self.dtype), strict=True))
        return torch.stack([self._texts[prompt] for prompt in prompts])

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise UserError for a prompt of more tokens, with its marks, than the model takes."""
        for prompt, ids in zip(prompts, self.pipe.tokenizer(list(prompts)).input_ids, strict=True):
            if len(ids) > self.text_length:
                raise UserError(
                    f"The prompt '{prompt}' has {len(ids)} tokens, the model takes {self.text_length}: "
                    "shorten it, or the name of the class that it is made of."
                )

    def with_texts(self, texts: Mapping[str, Tensor]) -> "Generator":
        """The same networks with the text conditions (tokens, width) of these prompts given."""
        return replace(self, _texts=dict(texts))

    @torch.no_grad()
    def embed_image(
        self,
        images: Sequence[ImageLike],
        seeds: Sequence[int],
        dropout: Dropout = NO_DROPOUT,
        noise_level: int = 0,
    ) -> Tensor:
        """Image condition: CLIP's image embedding with dropout and noise, and its noise level.

        Of n images of any size, each with the seed of its dropout (FG 3.2) and noise: (n, 2 width); zeros, as
        `no_image`, where dropout leaves nothing. noise_level: step of the noising schedule; 0 adds the little
        noise of its first step, as diffusers does. Raises UserError where the model takes text only, and for
        an unknown noise level.
        """
        embedding = self.clip_embedding(images)
        return self.condition_image(embedding, seeds, dropout, noise_level)

    @torch.no_grad()
    def clip_embedding(self, images: Sequence[ImageLike], batch: int = 256) -> Tensor:
        """CLIP's projected image embeddings, (n, width); UserError where the model takes text only."""
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
        """Image condition as `embed_image`, from CLIP embeddings (n, width)."""
        self._check_takes_images()
        top = self.pipe.image_noising_scheduler.config.num_train_timesteps
        if not 0 <= noise_level < top:
            raise UserError(f"Embedding noise level {noise_level}: choose between 0 and {top - 1}.")
        kept = dropout(embedding.to(self.device, self.dtype), seeds)
        drawn = noise([stable_seed("embedding noise", s) for s in seeds], embedding.shape[1:])
        noised = self.pipe.noise_image_embeddings(kept, noise_level, noise=drawn.to(kept))
        return noised * (kept != 0).any(1, keepdim=True)

    def no_image(self, n: int) -> Tensor:
        """Image condition of text-only sampling: zeros (n, 2 width), as of unCLIP's unconditional half."""
        return torch.zeros(n, self.image_width, device=self.device, dtype=self.dtype)

    def _check_takes_images(self) -> None:
        if not self.image_width:
            raise UserError(
                f"{type(self.pipe).__name__} takes text only, no image condition: leave out the methods with "
                "image: true, or set the parameter `generator` to an unCLIP."
            )

    @checked
    def predict(self, text: Tensor, image: Tensor, cfg: NotNegative) -> Predict:
        """Model function under classifier-free guidance, out = out_uncond + s (out_cond - out_uncond).

        FG eq. 2, of epsilon or v; both halves are one pass of the network. text (n, tokens, width), image
        (n, image_width); a scale s = `cfg` of at most 1 switches it off. Raises UserError for an image
        condition of another width.
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
            """The denoiser's output under classifier-free guidance."""
            latent = torch.cat([z, z]) if guided else z
            latent = latent.to(self.dtype, memory_format=torch.channels_last)
            out = self.pipe.unet(latent, t, text, class_labels=labels, return_dict=False)[0].to(z.dtype)
            if not guided:
                return out
            without, with_condition = out.chunk(2)
            return without + cfg * (with_condition - without)

        return model_function(network, self.schedule, self.pipe.scheduler.config.prediction_type)

    def decode(self, z: Tensor) -> Tensor:
        """Decode latents (n, c, h, w) to images, float32 (n, 3, height, width) in about [-1, 1]."""
        return _decoded(self.pipe.vae, z)

    def decode_for_guidance(self, z: Tensor) -> Tensor:
        """Decode latents for the guide: as `decode`, by the tiny decoder where there is one."""
        return _decoded(self.tiny or self.pipe.vae, z)

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """Standard normal noise, float32 (n, c, h, w), each row by its own seed."""
        c = self.pipe.unet.config
        return noise(seeds, (c.in_channels, c.sample_size, c.sample_size)).to(self.device)


def _decoded(vae: Any, z: Tensor) -> Tensor:
    z = z.float() / vae.config.scaling_factor
    with torch.autocast(z.device.type, enabled=False):
        parts = [z] if z.shape[-1] < LARGE else z.split(1)
        return torch.cat([vae.decode(part, return_dict=False)[0] for part in parts])

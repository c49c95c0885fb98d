"""The frozen generator: text and image conditions, the model function, the decoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from fgsynth.config.checked import checked
from fgsynth.config.schema import Count, NotNegative
from fgsynth.data.images import ImageLike, as_rgb_all
from fgsynth.generate import pipelines
from fgsynth.generate.dropout import NO_DROPOUT, Dropout
from fgsynth.guidance.schedule import Predict, Schedule, model_function, without_memory
from fgsynth.utils.errors import UserError
from fgsynth.utils.seeds import noise

LARGE = 32
"""Side of latents from which memory is saved at the cost of time: decoding one by one, checkpoints."""


@dataclass
class Generator:
    """A frozen pipeline of one of the families of `pipelines.FAMILIES`, and its schedule.

    Text embeddings are cached by prompt, as class names repeat. pipe: the diffusers pipeline, whose networks
    are used one by one; schedule: its noise schedule and steps; tiny: a small decoder for guidance alone,
    None for the autoencoder's own; size: side of the latents, None for that which the model was made for.
    """

    pipe: Any
    schedule: Schedule
    tiny: AutoencoderTiny | None = None
    size: int | None = None
    _texts: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.family = pipelines.family_of(self.pipe)

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
        side: Count | None = None,
    ) -> "Generator":
        """Load a generator from a local folder or a hub id, of the family that model_index.json names.

        "MODEL + ADAPTER" lets an SDXL, Stable Diffusion 3 or FLUX.1 take images (`pipelines.pipeline`).
        `n_steps` are DDIM's; `dtype` is of all networks but the decoders; `tiny_decoder` is the folder or hub
        id of an AutoencoderTiny for guidance; `side` of images is in pixels, None for the model's own. Raises
        UserError where a model cannot be loaded, for a tiny decoder of other latents, for a device that is
        not there and a side that the model cannot draw.
        """
        if not dtype.is_floating_point:
            raise UserError(f"Generator.load: dtype is {dtype}: choose torch.float32, bfloat16 or float16.")
        pipe = pipelines.pipeline(model, revision, dtype)
        tiny = None
        if tiny_decoder is not None:
            tiny = pipelines.tiny_decoder(tiny_decoder, pipe.vae.config.latent_channels)
        return cls.of(pipe, n_steps, device=device, tiny=tiny, side=side)

    @classmethod
    def of(
        cls,
        pipe: Any,
        n_steps: int = 30,
        *,
        device: str = "cpu",
        tiny: AutoencoderTiny | None = None,
        side: int | None = None,
    ) -> "Generator":
        """Generator of a pipeline: its networks frozen, on the device, sampled by DDIM, Euler on a flow.

        It replaces the pipeline's scheduler, with the same noise schedule: a scheduler with memory, such as
        the PNDM of Stable unCLIP 2-1, breaks under a shifted latent. Decoders stay in float32, as half
        precision loses the criterion's gradient, and overflows in SDXL's.
        """
        family, scale = pipelines.family_of(pipe), pipe.vae_scale_factor
        pipe.scheduler = without_memory(pipe.scheduler)
        if side is not None and side % (scale * family.patch):
            raise UserError(f"Images of {side} pixels: choose a multiple of {scale * family.patch}.")
        size = side // scale if side else family.size
        schedule = Schedule.from_scheduler(pipe.scheduler, n_steps, **family.spacing(size))
        generator = cls(pipe, schedule, tiny, size)
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise UserError(f"There is no device '{device}' here ({reason}): take 'cpu'.") from error
        besides = (getattr(pipe, name, None) for name in ("image_normalizer", "image_embedder"))
        for part in filter(None, (*generator.networks.values(), *besides)):
            part.requires_grad_(False).eval().to(device)
        for decoder in filter(None, (pipe.vae, tiny)):
            nn.Module.float(decoder)  # diffusers own `to` warns about every cast
        for part in (family.denoiser, pipe.vae):
            part.to(memory_format=torch.channels_last)
        if generator.large:
            for part in filter(None, (family.denoiser, tiny)):
                part.enable_gradient_checkpointing()
            pipelines.checkpoint_each(pipe.vae.decoder)
        return generator

    def in_steps(self, n_steps: int) -> "Generator":
        """The same networks, sampled in another number of steps."""
        spacing = self.family.spacing(self.latents)
        return replace(self, schedule=Schedule.from_scheduler(self.pipe.scheduler, n_steps, **spacing))

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks by what they are for; those that the model does not have are left out."""
        texts = [encoder for _, encoder, _ in self.family.readers]
        named = {
            **{f"text {i}" if i > 1 else "text": encoder for i, encoder in enumerate(texts, 1)},
            "image": getattr(self.pipe, "image_encoder", None), "denoiser": self.family.denoiser,
            "autoencoder": self.pipe.vae, "tiny decoder": self.tiny,
        }  # fmt: skip
        return {name: part for name, part in named.items() if part is not None}

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return next(self.family.denoiser.parameters()).device

    @property
    def latents(self) -> int:
        """Side of the latents."""
        return self.size or self.family.size

    @property
    def large(self) -> bool:
        """Whether memory is saved at the cost of time, see LARGE."""
        return self.latents >= LARGE

    @property
    def side(self) -> int:
        """Pixels of an image's side."""
        return int(self.latents * self.pipe.vae_scale_factor)

    @property
    def text_length(self) -> int:
        """Tokens of a prompt at most, with its marks: of the encoder that takes fewest."""
        return min(length for *_, length in self.family.readers)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the denoiser."""
        return next(self.family.denoiser.parameters()).dtype

    @property
    def image_width(self) -> int:
        """Width of an image condition: twice CLIP's of unCLIP; 0 for a model that takes text only."""
        return self.family.image_shape[-1]

    @torch.no_grad()
    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Text condition: hidden states of the text encoders, (n, tokens, width), cached by prompt.

        A pooled embedding, where the family has one, is the last of the tokens. Kept in main memory, as those
        of T5 for a thousand classes are gigabytes.

        Raises UserError as `check_prompts`.
        """
        new = sorted(set(prompts) - set(self._texts))
        if new:
            self.check_prompts(new)
            self._texts.update(zip(new, self.family.embed_text(new).to("cpu", self.dtype), strict=True))
        return torch.stack([self._texts[prompt] for prompt in prompts]).to(self.device)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise UserError for a prompt of more tokens, with its marks, than the model takes."""
        for tokens, _, length in self.family.readers:
            for prompt, ids in zip(prompts, tokens(list(prompts)).input_ids, strict=True):
                if len(ids) > length:
                    raise UserError(
                        f"The prompt '{prompt}' has {len(ids)} tokens, the model takes {length}: "
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
        """Image condition: the image's embedding with dropout, as the model takes it, (n, ...).

        Of n images of any size, each with the seed of its dropout (FG 3.2) and noise. Of unCLIP it is CLIP's
        embedding with noise, and its noise level, (n, 2 width): zeros, as `no_image`, where dropout leaves
        nothing. noise_level: step of unCLIP's noising schedule; 0 adds the little noise of its first step, as
        diffusers does. Raises UserError where the model takes text only, and for an unknown noise level.
        """
        return self.condition_image(self._embedded(images), seeds, dropout, noise_level)

    @torch.no_grad()
    def clip_embedding(self, images: Sequence[ImageLike], batch: int = 256) -> Tensor:
        """The image encoder's embeddings, (n, width): CLIP's projected ones, else the mean of its tokens.

        Raises UserError where the model takes text only.
        """
        embedding = self._embedded(images, batch)
        return embedding if embedding.ndim == 2 else embedding.mean(1)

    def _embedded(self, images: Sequence[ImageLike], batch: int = 256) -> Tensor:
        """What dropout takes units of, (n, [tokens,] width)."""
        self._check_takes_images()
        parts = []
        for start in range(0, len(images), batch):
            rgb = as_rgb_all(images[start : start + batch], start)
            pixels = self.pipe.feature_extractor(images=rgb, return_tensors="pt").pixel_values
            parts.append(self.family.embed_images(pixels.to(self.device, self.dtype)))
        return torch.cat(parts)

    @torch.no_grad()
    def condition_image(
        self, embedding: Tensor, seeds: Sequence[int], dropout: Dropout = NO_DROPOUT, noise_level: int = 0
    ) -> Tensor:
        """Image condition as `embed_image`, from embeddings (n, [tokens,] width)."""
        self._check_takes_images()
        kept = dropout(embedding.to(self.device, self.dtype), seeds)
        return self.family.condition(kept, seeds, noise_level)

    def no_image(self, n: int) -> Tensor:
        """Image condition of text-only sampling: zeros, as of the unconditional half; of Redux no tokens."""
        return torch.zeros(n, *self.family.nothing, device=self.device, dtype=self.dtype)

    def _check_takes_images(self) -> None:
        if not self.image_width:
            raise UserError(
                f"{type(self.pipe).__name__} takes text only, no image condition: leave out the methods with "
                "image: true, or set the parameter `generator` to an unCLIP or to 'MODEL + ADAPTER'."
            )

    @checked
    def predict(self, text: Tensor, image: Tensor, cfg: NotNegative) -> Predict:
        """Model function under classifier-free guidance, out = out_uncond + s (out_cond - out_uncond).

        FG eq. 2, of what the network predicts; both halves are one pass of the network. text (n, tokens,
        width), image as `embed_image` or `no_image` gives it; a scale s = `cfg` of at most 1 switches it off.
        A network whose guidance is distilled takes s as a number. Raises UserError for an image condition of
        another shape, and for a scale that the model does not take.
        """
        family = self.family
        if tuple(image.shape[1:]) not in (family.image_shape, family.nothing):
            raise UserError(
                f"The image condition has {_shown(image.shape[1:])} numbers, the model takes "
                f"{_shown(family.image_shape)}: make it with this generator's embed_image or no_image."
            )
        family.check_cfg(cfg)
        guided = cfg > 1 and not family.folds_cfg
        if guided:
            prompt = family.empty_prompt
            without = torch.zeros_like(text[:1]) if prompt is None else self.embed_text([prompt])
            text = torch.cat([without.expand_as(text), text])
            image = torch.cat([torch.zeros_like(image), image])

        def network(z: Tensor, t: float) -> Tensor:
            """The denoiser's output under classifier-free guidance."""
            latent = torch.cat([z, z]) if guided else z
            latent = latent.to(self.dtype, memory_format=torch.channels_last)
            out = family.evaluate(latent, t, text, image, cfg).to(z.dtype)
            if not guided:
                return out
            without, with_condition = out.chunk(2)
            return without + cfg * (with_condition - without)

        return model_function(network, self.schedule, self.schedule.kind)

    def decode(self, z: Tensor) -> Tensor:
        """Decode latents (n, c, h, w) to images, float32 (n, 3, height, width) in about [-1, 1]."""
        return _decoded(self.pipe.vae, z)

    def decode_for_guidance(self, z: Tensor) -> Tensor:
        """Decode latents for the guide: as `decode`, by the tiny decoder where there is one."""
        return _decoded(self.tiny or self.pipe.vae, z)

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """Standard normal noise, float32 (n, c, h, w), each row by its own seed."""
        shape = (self.pipe.vae.config.latent_channels, self.latents, self.latents)
        return noise(seeds, shape).to(self.device)


def _decoded(vae: Any, z: Tensor) -> Tensor:
    z = z.float() / vae.config.scaling_factor
    if shift := vae.config.get("shift_factor"):
        z = z + shift
    with torch.autocast(z.device.type, enabled=False):
        parts = [z] if z.shape[-1] < LARGE else z.split(1)
        return torch.cat([vae.decode(part, return_dict=False)[0] for part in parts])


def _shown(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))

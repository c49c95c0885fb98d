"""The mini unCLIP's denoiser: text by cross-attention and pooled, the noised image embedding as class."""

from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from torch import Tensor
from torch.nn.functional import mse_loss

from fgsynth.config.params import Conditioning
from fgsynth.pretrain.clip import WIDTH
from fgsynth.pretrain.corpus import Siblings


def denoiser() -> UNet2DConditionModel:
    """A small UNet2DConditionModel on 8 x 8 latents; attention at 4 x 4 only, where it is cheap."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(96, 160),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=WIDTH,
        norm_num_groups=16,
        use_linear_projection=True,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=2 * WIDTH,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )


def scheduler() -> DDIMScheduler:
    """Cosine schedule, v-prediction (Nichol and Dhariwal 2021; Salimans and Ho 2022)."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def noising_scheduler() -> DDPMScheduler:
    """The noise levels of the image embedding, as in Stable unCLIP."""
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2")


def normaliser(embeddings: Tensor) -> StableUnCLIPImageNormalizer:
    """Mean and standard deviation of the web's image embeddings."""
    out = StableUnCLIPImageNormalizer(embeddings.shape[1])
    out.mean.data, out.std.data = embeddings.mean(0, keepdim=True), embeddings.std(0, keepdim=True)
    return out


@dataclass(frozen=True)
class Encoded:
    """The corpus as the denoiser is trained on it.

    latents (n, 4, 8, 8), scaled; images (n, WIDTH); text (distinct captions, LENGTH, WIDTH);
    caption (n,): row of `text`; empty: row of `text` of the empty caption.
    """

    latents: Tensor
    images: Tensor
    text: Tensor
    caption: Tensor
    empty: int
    siblings: Siblings


class DenoisingLoss:
    """v-prediction loss at logit-normal times (Esser et al. 2024), with the conditions thinned out."""

    def __init__(self, unet: UNet2DConditionModel, data: Encoded, conditioning: Conditioning) -> None:
        self.unet, self.data, self.conditioning = unet, data, conditioning
        self.scheduler, self.noising = scheduler(), noising_scheduler()
        self.normaliser = normaliser(data.images)

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """The mean loss of a batch of corpus rows."""
        device, data = self.unet.device, self.data
        z = data.latents[rows]
        noise = torch.randn(z.shape, generator=generator)
        t = (torch.randn(len(rows), generator=generator).sigmoid() * 1000).long().clamp(max=999)
        text, image = self.conditions(rows, generator)
        noised = self.scheduler.add_noise(z, noise, t).to(device, memory_format=torch.channels_last)
        target = self.scheduler.get_velocity(z, noise, t).to(device)
        out = self.unet(noised, t.to(device), text.to(device), class_labels=image.to(device)).sample
        return mse_loss(out, target)

    @torch.no_grad()
    def conditions(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Text states (n, LENGTH, WIDTH) and noised image embeddings with their level (n, 2 WIDTH)."""
        c, data = self.conditioning, self.data
        u = torch.rand(3, len(rows), generator=generator)
        shown = torch.where(u[0] < c.sibling, data.siblings(rows, generator), rows)
        level = (u[1] < c.noised) * (torch.rand(len(rows), generator=generator) * c.level).long()
        image = self.normaliser.scale(data.images[shown])
        noise = torch.randn(image.shape, generator=generator)
        # Level 0 adds a little noise too, as the pipeline does.
        image = self.normaliser.unscale(self.noising.add_noise(image, noise, level))
        position = get_timestep_embedding(level, image.shape[1], flip_sin_to_cos=True, downscale_freq_shift=0)
        image = torch.cat([image, position], 1)
        no_image = (u[2] < c.no_image + c.nothing)[:, None]
        no_text = (u[2] >= c.no_image) & (u[2] < c.no_image + c.nothing + c.no_text)
        caption = torch.where(no_text, torch.tensor(data.empty), data.caption[rows])
        return data.text[caption], torch.where(no_image, torch.zeros_like(image), image)

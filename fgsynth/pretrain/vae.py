"""The mini autoencoder: 32 x 32 images to 8 x 8 latents of 4 channels."""

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from fgsynth.models.networks import Classifier
from fgsynth.pretrain.corpus import Corpus


def autoencoder() -> AutoencoderKL:
    """A small AutoencoderKL; narrow where the image is large, so that its gradient stays cheap."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=32,
        mid_block_add_attention=False,
    )


def reconstruction_loss(
    vae: AutoencoderKL, x: Tensor, generator: torch.Generator, features: Classifier | None = None
) -> Tensor:
    """L1 of pixels, of pixel differences and of a network's features + 1e-5 KL (Rombach et al. 2022).

    Differences carry the silhouettes. features: a network trained on the web, as LPIPS is on photographs;
    it is not the one that judges.
    """
    posterior = vae.encode(x).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator).to(x.device)
    y = vae.decode(posterior.mean + posterior.std * noise).sample
    loss = (y - x).abs().mean() + 1e-5 * 0.5 * (
        posterior.mean.square() + posterior.var - 1 - posterior.logvar
    ).mean()
    loss = loss + sum((y.diff(dim=d) - x.diff(dim=d)).abs().mean() for d in (2, 3))
    if features is not None:
        with torch.no_grad():
            wanted = _features(features, x)
        pairs = zip(_features(features, y), wanted, strict=True)
        loss = loss + 0.2 * sum((a - b).abs().mean() / b.abs().mean() for a, b in pairs)
    return loss


def _features(network: Classifier, x: Tensor) -> list[Tensor]:
    inner: Any = network.network
    return list(inner.forward_intermediates(x, indices=[1, 2, 3], intermediates_only=True))


@torch.no_grad()
def latents(vae: AutoencoderKL, corpus: Corpus, batch: int = 512) -> Tensor:
    """Means of the posterior of every image, (n, 4, 8, 8), unscaled."""
    rows = torch.arange(len(corpus.images)).split(batch)
    device = next(vae.parameters()).device
    return torch.cat([vae.encode(corpus.batch(r).to(device)).latent_dist.mean.cpu() for r in rows])

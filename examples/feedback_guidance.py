"""Feedback-guided data synthesis (arXiv 2310.00158) in one file, in plain PyTorch, to read and to copy.

    python examples/feedback_guidance.py grid.png

trains a classifier f on a long-tailed set and writes images of its rarest classes, unguided on the left and
guided by f's entropy on the right, from the same seeds. The generator is a small Stable unCLIP and the real
images are rendered, so it takes less than a minute on a CPU; nothing else is imported from `fgsynth`.

The paper's equations, marked below by their numbers: (1) the sampler's step, (2) classifier-free guidance,
(3) the push by the criterion's gradient, (6) the criterion, entropy. Section 3.1.2 is the prediction z0 that
the gradient goes through, section 3.2 the dropout on the image embedding.
"""

import hashlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fgsynth.config.schema import LongTail
from fgsynth.data import mini
from fgsynth.generate.generator import Generator

Classifier = Callable[[Tensor], Tensor]
STEPS, EVERY = 30, 5  # of DDIM; every 5th step is guided
S, W, P = 3.0, 0.03, 0.5  # classifier-free scale s, feedback scale w, dropout p, as printed for Places-LT


def stream(name: str, seed: int) -> torch.Generator:
    """Random numbers that depend on an image's own seed only, not on its batch."""
    digest = hashlib.blake2b(digest_size=8)
    for part in (name.encode(), str(seed).encode()):
        digest.update(f"{len(part)}:".encode() + part)
    return torch.Generator().manual_seed(int.from_bytes(digest.digest(), "big") >> 1)


@torch.no_grad()
def embed_text(pipe: Any, prompts: Sequence[str]) -> Tensor:
    """Text condition: the text encoder's last hidden states, (n, tokens, width)."""
    ids = pipe.tokenizer(list(prompts), padding="max_length", return_tensors="pt").input_ids
    return pipe.text_encoder(ids)[0]


@torch.no_grad()
def embed_image(pipe: Any, images: Sequence[Image.Image], seeds: Sequence[int]) -> Tensor:
    """Image condition: CLIP embeddings with units dropped at random, at noise level 0 (section 3.2)."""
    pixels = pipe.feature_extractor(images=images, return_tensors="pt").pixel_values
    e = pipe.image_encoder(pixels).image_embeds
    u = torch.stack([torch.rand(e.shape[1], generator=stream("embedding dropout", s)) for s in seeds])
    noise = torch.stack([torch.randn(e.shape[1], generator=stream("embedding noise", s)) for s in seeds])
    return pipe.noise_image_embeddings(e * (u >= P), 0, noise=noise)


def decode(pipe: Any, z: Tensor) -> Tensor:
    """Dec(z): images (n, 3, h, w) in [-1, 1]."""
    return pipe.vae.decode(z / pipe.vae.config.scaling_factor).sample


def entropy(logits: Tensor) -> Tensor:
    """Criterion, equation (6): C = -sum_c p_f(c|x) log p_f(c|x), (n,)."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def norm(x: Tensor) -> Tensor:
    """Euclidean norm of every sample, (n, 1, 1, 1)."""
    return x.flatten(1).norm(dim=1)[:, None, None, None]


def sample(pipe: Any, f: Classifier, text: Tensor, image: Tensor, seeds: Sequence[int], w: float) -> Tensor:
    """DDIM with classifier-free guidance s and feedback guidance w (0 for none): images (n, 3, h, w)."""
    net, scheduler = pipe.unet, pipe.scheduler
    shape = (net.config.in_channels, net.config.sample_size, net.config.sample_size)
    z = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])
    text = torch.cat([embed_text(pipe, [""]).expand_as(text), text])
    image = torch.cat([torch.zeros_like(image), image])
    scheduler.set_timesteps(STEPS)
    for i, t in enumerate(scheduler.timesteps.tolist()):
        t_prev = t - scheduler.config.num_train_timesteps // STEPS
        abar = scheduler.alphas_cumprod[t]
        abar_prev = scheduler.alphas_cumprod[t_prev] if t_prev >= 0 else scheduler.final_alpha_cumprod
        guided = w > 0 and i % EVERY == 0
        with torch.set_grad_enabled(guided):
            z = z.detach().requires_grad_(guided)
            out = net(torch.cat([z, z]), t, text, class_labels=image).sample
            v_uncond, v_cond = out.chunk(2)
            v = v_uncond + S * (v_cond - v_uncond)  # equation (2)
            z0 = abar.sqrt() * z - (1 - abar).sqrt() * v  # of a v-prediction (section 3.1.2)
            eps = abar.sqrt() * v + (1 - abar).sqrt() * z
            if guided:
                c = entropy(f(decode(pipe, z0)))
                g = torch.autograd.grad(c.sum(), z)[0]  # grad_z C(f, Dec(z0), y), equation (3)
                # z moves by w of its own norm, and z0 = (z - sqrt(1 - abar) eps) / sqrt(abar) with it.
                z0 = z0 + w * norm(z) / norm(g) * g / abar.sqrt()
        z = (abar_prev.sqrt() * z0 + (1 - abar_prev).sqrt() * eps).detach()  # equation (1)
    with torch.no_grad():
        return decode(pipe, z).clamp(-1, 1)


def train(x: Tensor, y: Tensor, n_classes: int, updates: int = 300) -> Classifier:
    """Classifier f by empirical risk minimisation on the imbalanced set."""
    torch.manual_seed(0)
    f = timm.create_model("resnet18", num_classes=n_classes, layers=(1, 1, 1, 1), channels=(32, 64, 96, 128))
    optimiser = torch.optim.AdamW(f.parameters(), 4e-3, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, updates)
    for _ in range(updates):
        rows = torch.randint(len(x), (64,))
        optimiser.zero_grad()
        F.cross_entropy(f(x[rows]), y[rows]).backward()
        optimiser.step()
        rate.step()
    return f.eval().requires_grad_(False)


def grid(x: Tensor, rows: int) -> Tensor:
    """Images (n, 3, h, w) in [-1, 1] as one of (height, width, 3), uint8, row by row."""
    levels = ((x + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    return levels.unflatten(0, (rows, -1)).transpose(1, 2).flatten(2, 3).flatten(0, 1)


def main(path: str, rows: int = 6, columns: int = 4) -> None:
    """Images of the `rows` rarest classes, each conditioned on a random real image of its class."""
    pipe = Generator.load("data/pretrained/mini-unclip", STEPS).pipe
    shares = (0.65, 0.2, 0.1, 0.05)  # of a class's appearances
    benchmark = mini.imagenet_lt(
        LongTail(n_max=200, n_min=4, strata=(8, 9, 7), n_val=1, n_test=1, modes=shares)
    )
    table, names = benchmark.manifest.rows("train"), benchmark.manifest.classes
    real, y = benchmark.images(table), torch.tensor(table["label"].to_numpy())
    f = train(real.permute(0, 3, 1, 2) / 127.5 - 1, y, len(names))
    label = y.bincount().argsort()[:rows].repeat_interleave(columns)
    seeds = range(len(label))
    photos = []
    for c, seed in zip(label, seeds, strict=True):
        own = torch.nonzero(y == c)[:, 0]
        drawn = own[torch.randint(len(own), (), generator=stream("condition", seed))]
        photos.append(Image.fromarray(real[drawn].numpy()))
    text, image = embed_text(pipe, [names[c] for c in label]), embed_image(pipe, photos, seeds)
    sides = []
    for w in (0.0, W):
        x = sample(pipe, f, text, image, seeds, w)
        print(f"w = {w}: entropy of f {float(entropy(f(x)).mean()):.3f} nats")
        sides.append(grid(x, rows))
    gap = torch.full((len(sides[0]), 8, 3), 255, dtype=torch.uint8)
    both = Image.fromarray(torch.cat([sides[0], gap, sides[1]], 1).numpy())
    both.resize((4 * both.width, 4 * both.height), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "grid.png")

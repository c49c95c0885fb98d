"""Textual inversion (Gal et al. 2022): a word for a class, learned under a frozen generator."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.func import functional_call

from fgsynth.config.schema import MARK, Inversion
from fgsynth.data.images import ImageLike, as_rgb_all, from_uint8
from fgsynth.generate.generator import Generator
from fgsynth.utils.errors import UserError
from fgsynth.utils.paths import atomic
from fgsynth.utils.progress import progress
from fgsynth.utils.seeds import generator as seeded
from fgsynth.utils.seeds import stable_seed

ENCODED = 16
"""Images that are encoded together."""


def learn_words(
    generator: Generator,
    words: Sequence[str],
    images: Callable[[int], Sequence[ImageLike]],
    settings: Inversion,
    seed: int,
    folder: Path,
) -> Generator:
    """Generator with the text conditions of these words learned from images; other prompts stay as they are.

    words: the prompts to learn; images: real images of the i-th word's class; seed: of all draws. The folder
    keeps each word as `0000i.safetensors` with its `vector` (width,); a word that is there is not learned
    again, so a stopped run goes on with the next. Raises UserError as `invert`, and for a damaged file.
    """
    states = {}
    for i, word in enumerate(progress(words, "textual inversion")):
        path = folder / f"{i:05d}.safetensors"
        if not path.is_file():
            own = stable_seed("textual inversion", seed, word)
            vector = invert(generator, images(i), word, settings, own)
            with atomic(path) as partial:
                save_file({"vector": vector}, partial)
        with torch.no_grad():
            states[word] = text_states(generator, settings.template, _read(path))
    return generator.with_texts(states)


def invert(
    generator: Generator, images: Sequence[ImageLike], word: str, settings: Inversion, seed: int
) -> Tensor:
    """The token embedding v, (width,) float32, that denoises these images best (Gal et al. 2022, eq. 2).

    v minimises the generator's own training loss over images, noise and times, by the text condition alone:
    |eps_hat - eps|^2, of a v-prediction model |v_hat - v|^2. It starts as the mean of the embeddings of the
    word's tokens. A batch shares its time, which `predict` takes one of. The seed decides all draws.
    Raises UserError where there are no images, for a template whose mark is not one token, and where the
    loss leaves the range of the generator's precision.
    """
    if not images:
        raise UserError(f"There are no images to learn the word '{word}' from: sample it by its name.")
    z = latents(generator, images[: settings.most])
    vector = start(generator, word).requires_grad_(True)
    optimiser = torch.optim.Adam([vector], settings.rate)
    times = _times(generator.pipe.scheduler.config.num_train_timesteps, settings.updates, seed)
    for i, t in enumerate(times):
        draw = seeded("inversion batch", seed, i)
        chosen = z[torch.randint(len(z), (settings.batch,), generator=draw)]
        noise = torch.randn(chosen.shape, generator=draw).to(chosen)
        optimiser.zero_grad()
        loss = denoising_loss(generator, settings.template, vector, chosen, noise, t)
        loss.backward()
        optimiser.step()
    if not bool(vector.isfinite().all()):
        raise UserError(
            f"The word learned for '{word}' is not finite: lower the rate of the inversion, or run the "
            "generator in float32 or bfloat16."
        )
    return vector.detach().cpu()


def denoising_loss(
    generator: Generator, template: str, vector: Tensor, z: Tensor, noise: Tensor, t: int
) -> Tensor:
    """The mean squared error of the denoiser's own output for clean latents z (n, c, h, w) at a time t."""
    schedule = generator.schedule
    signal, sigma = schedule.signal(t, z.device, z.dtype), schedule.noise(t, z.device, z.dtype)
    text = text_states(generator, template, vector).expand(len(z), -1, -1)
    predict = generator.predict(text, generator.no_image(len(z)), 1.0)
    x0, eps = predict(signal * z + sigma * noise, t)
    if generator.schedule.kind == "epsilon":
        return (eps - noise).float().square().mean()
    # v = signal eps - sigma x0, of the prediction as of the truth (Salimans and Ho 2022).
    return (signal * (eps - noise) - sigma * (x0 - z)).float().square().mean()


def text_states(generator: Generator, template: str, vector: Tensor) -> Tensor:
    """Text states (tokens, width) of a template whose mark has this embedding; differentiable in it.

    Raises UserError where the tokenizer has no token of its own for the mark, and for several encoders.
    """
    if len(generator.family.readers) > 1:
        raise UserError(
            f"A {type(generator.pipe).__name__} reads prompts by several encoders, and a word is learned for "
            "one: leave out the methods with learned words, or take an unCLIP."
        )
    tokens, encoder = generator.pipe.tokenizer, generator.pipe.text_encoder
    mark = tokens(MARK, add_special_tokens=False).input_ids
    length = generator.text_length
    ids = tokens([template], padding="max_length", max_length=length, return_tensors="pt").input_ids
    if len(mark) != 1 or int((ids == mark[0]).sum()) != 1:
        raise UserError(
            f"The tokenizer does not keep '{MARK}' as one token of the template '{template}': put spaces "
            "around it, or take another generator."
        )
    table = encoder.get_input_embeddings().weight
    (name,) = (key for key, p in encoder.named_parameters() if p is table)
    longer = torch.cat([table, vector[None].to(table)])
    marked = ids.masked_fill(ids == mark[0], len(table)).to(table.device)
    states: Tensor = functional_call(encoder, {name: longer}, (marked,))[0]
    return states[0].to(generator.dtype)


@torch.no_grad()
def start(generator: Generator, word: str) -> Tensor:
    """The mean token embedding of a name, (width,) float32: where its word starts."""
    ids = generator.pipe.tokenizer(word, add_special_tokens=False).input_ids
    if not ids:
        raise UserError(f"The name '{word}' has no tokens: give the class a name.")
    table = generator.pipe.text_encoder.get_input_embeddings().weight
    return table[torch.tensor(ids, device=table.device)].float().mean(0)


@torch.no_grad()
def latents(generator: Generator, images: Sequence[ImageLike]) -> Tensor:
    """The autoencoder's latents of images, at the generator's own size: float32 (n, c, h, w).

    Of larger or wider images the centre, the whole shorter edge. Means of the posterior, scaled.
    """
    vae, side, parts = generator.pipe.vae, generator.side, []
    for first in range(0, len(images), ENCODED):
        rgb = as_rgb_all(images[first : first + ENCODED], first)
        fitted = [np.asarray(ImageOps.fit(im, (side, side), Image.Resampling.LANCZOS)) for im in rgb]
        x = from_uint8(torch.from_numpy(np.stack(fitted))).to(generator.device)
        parts.append(vae.encode(x).latent_dist.mode() * vae.config.scaling_factor)
    return torch.cat(parts)


def _times(total: int, updates: int, seed: int) -> list[int]:
    """A time of the schedule for every update: one of each equal stretch, in random order."""
    draw = seeded("inversion times", seed)
    where = (torch.arange(updates) + torch.rand(updates, generator=draw)) / updates
    shuffled = where[torch.randperm(updates, generator=draw)]
    return [min(total - 1, int(total * share)) for share in shuffled.tolist()]


def _read(path: Path) -> Tensor:
    try:
        return load_file(path)["vector"]
    except (SafetensorError, KeyError, OSError) as error:
        raise UserError(f"{path} is damaged: remove it, and the word is learned again.") from error
